"""The idempotency key of a callback."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.ecs import request_id

GUID = UUID("cffde776-1d2a-4614-8023-a5148e411462")


def test_it_is_stable_over_restarts_and_releases() -> None:
    """A literal value: to change it is to have ECS take a repeat for something new."""
    assert request_id(GUID, b'{"success":true}') == "69638fe2-14b0-5b56-8655-505b9a8785c9"


@given(st.uuids(), st.uuids(), st.binary(max_size=50), st.binary(max_size=50))
def test_it_differs_between_jobs_and_between_bodies(one: UUID, other: UUID, body: bytes, another: bytes) -> None:
    """Equal exactly where job and body are."""
    same = (one, body) == (other, another)
    assert (request_id(one, body) == request_id(other, another)) is same
    assert str(UUID(request_id(one, body))) == request_id(one, body)
