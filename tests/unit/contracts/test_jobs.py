"""What a job is called, and what is said about it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.contracts import BatchFailed, BatchProcessed, BatchRequested, CallbackBody, event_id, job_key, stable_hash

JOB = UUID("cffde776-1d2a-4614-8023-a5148e411462")
SIGNATURE = "X-Amz-Signature=0123456789abcdef"
ANNOUNCED: dict[str, Any] = {
    "job_guid": str(JOB),
    "partner_reference_id": "order-2026-01",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": ["store-1", "store-2"],
    "record_count": 3,
    "input_file_url": f"https://files.example.com/in.csv?{SIGNATURE}",
    "result_upload_url": f"https://files.example.com/out.csv?{SIGNATURE}",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": "https://api.ecs.example.com/jobs/1/result-uploaded",
}
DECIDED: dict[str, Any] = {
    "integration": "acme",
    "job_guid": str(JOB),
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "partner_reference_id": "order-2026-01",
    "announcement": "00112233445566aa",
    "at": "2026-01-22T12:00:00Z",
}


def announced(**changes: object) -> BatchRequested:
    return BatchRequested.model_validate_json(json.dumps({**ANNOUNCED, **changes}))


def test_an_announcement_is_read_as_ecs_writes_it() -> None:
    event = announced()
    assert event.job_guid == JOB
    assert event.expires_at.isoformat() == "2026-01-22T22:43:59.295000+00:00"
    assert event.external_location_ids == ("store-1", "store-2")


def test_unknown_fields_are_kept() -> None:
    assert announced(priority={"level": 1}).model_dump()["priority"] == {"level": 1}


def test_no_url_is_in_its_representation() -> None:
    assert SIGNATURE not in repr(announced())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_guid", "not-a-guid"),
        ("record_count", -1),
        ("record_count", "3"),
        ("record_count", 3.5),
        ("record_count", True),
        ("expires_at", "2026-01-22T22:43:59"),
        ("expires_at", 1769122000),
        ("expires_at", None),
        ("expires_at", "0001-01-01T00:00:00Z"),
        ("expires_at", "1999-12-31T23:59:59Z"),
        ("expires_at", "9999-12-31T23:59:59-12:00"),
        ("record_count", 10**12 + 1),
        ("external_location_ids", "store-1"),
        ("partner_reference_id", "x" * 1025),
        ("input_file_url", None),
    ],
)
def test_a_wrong_field_is_named_and_no_url_is_repeated(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        announced(**{field: value})
    assert [error["loc"][0] for error in caught.value.errors()] == [field]
    assert SIGNATURE not in str(caught.value)


@pytest.mark.parametrize("field", sorted(ANNOUNCED))
def test_every_field_is_needed(field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BatchRequested.model_validate({name: value for name, value in ANNOUNCED.items() if name != field})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_an_announcement_with_an_offset_is_the_same_moment() -> None:
    assert announced(expires_at="2026-01-23T00:43:59.295+02:00").expires_at == announced().expires_at


def test_a_reader_of_an_older_version_ignores_what_it_does_not_know() -> None:
    event = BatchFailed.model_validate({**DECIDED, "reason": "deadline_passed", "error_message": "Late.", "new": 1})
    assert "new" not in event.model_dump()
    assert (event.attempt, event.again) == (1, None)


@pytest.mark.parametrize("again", ["", "a b", "x" * 65, "ä"])
def test_a_repetition_is_named_by_what_fits_into_a_store_key(again: str) -> None:
    with pytest.raises(ValidationError, match="again"):
        BatchFailed.model_validate({**DECIDED, "reason": "r", "error_message": "m", "again": again})


@pytest.mark.parametrize("name", ["", "Acme", "-acme", "acme_eu", "a/b", "x" * 64])
def test_an_integration_has_a_name_for_urls_keys_and_paths(name: str) -> None:
    with pytest.raises(ValidationError, match="integration"):
        BatchFailed.model_validate({**DECIDED, "integration": name, "reason": "r", "error_message": "m"})


def test_no_count_is_negative() -> None:
    counts = {"parts": 1, "records": 3, "records_ok": 3, "records_failed": -1, "result_bytes": 10}
    with pytest.raises(ValidationError, match="records_failed"):
        BatchProcessed.model_validate({**DECIDED, "generation": "g", **counts})


def test_ecs_reads_no_more_than_1200_characters_of_an_error() -> None:
    CallbackBody(success=False, records_processed=0, records_failed=0, error_message="x" * 1200)
    with pytest.raises(ValidationError, match="error_message"):
        CallbackBody(success=False, records_processed=0, records_failed=0, error_message="x" * 1201)


def test_the_key_of_a_job_is_readable() -> None:
    assert job_key("acme", JOB) == "acme/cffde776-1d2a-4614-8023-a5148e411462"


def test_an_event_id_never_changes_between_versions() -> None:
    """A literal: another value would tell every record in flight twice after an upgrade."""
    assert event_id("acme", str(JOB), b"{}") == "6ec41007119f606e4d4f70c082bf5e24"


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        ((), "e3b0c44298fc1c149afbf4c8996fb924"),
        (("acme", str(JOB), b"{}"), "6ec41007119f606e4d4f70c082bf5e24"),
        (("card", "acme", str(JOB)), "ee442a3896e6d496a3c05cae3463c8c8"),
        (("plan", '{"format": "1"}'), "ddbd469dfb85f5ef7b1907dcda22d2d6"),
        (("x" * 257,), "8548083db4e4c8f29845a0aea7bcb3a3"),
    ],
)
def test_a_stable_hash_never_changes_between_versions(parts: tuple[str | bytes, ...], value: str) -> None:
    """Literals: cards would get other idempotency keys after an upgrade, and jobs would forget their parts."""
    assert stable_hash(*parts) == event_id(*parts) == value


@given(st.lists(st.text(max_size=8), min_size=2, max_size=4), st.data())
def test_parts_cut_elsewhere_are_another_event(parts: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(parts) - 2))
    moved = [*parts[:index], parts[index] + parts[index + 1], *parts[index + 2 :]]
    assert event_id(*parts) == event_id(*parts)
    assert event_id(*parts) != event_id(*moved)


@given(st.text(max_size=20))
def test_text_and_its_bytes_are_the_same_part(text: str) -> None:
    assert event_id(text) == event_id(text.encode())


@pytest.mark.parametrize("attempt", [0, -1, 1_000_001, 10**300])
def test_an_attempt_has_a_number_that_fits_into_a_store_key(attempt: int) -> None:
    with pytest.raises(ValidationError, match="attempt"):
        BatchFailed.model_validate({**DECIDED, "attempt": attempt, "reason": "r", "error_message": "m"})
