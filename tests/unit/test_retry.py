"""Pauses between tries, for everything that is retried."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.jobs.ecs import CallbackSettings
from pipeline.jobs.processors import ProcessorSettings
from pipeline.jobs.transfer import TransferParameters
from pipeline.kafka import ConsumerSettings
from pipeline.retry import RetryPolicy, RetrySettings
from pipeline.subscriber import SubscriberSettings

ANY_SECONDS = st.floats(min_value=1e-6, max_value=1e6)


def policy(jitter: float) -> RetryPolicy:
    return RetryPolicy(2, 60, lambda: jitter)


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"),
    [(1, 0.0, 1.0), (1, 0.5, 1.5), (1, 1.0, 2.0), (2, 0.0, 2.0), (5, 0.0, 16.0), (6, 0.0, 30.0), (10_000, 0.0, 30.0)],
)
def test_pauses_double_up_to_the_bound(failures: int, jitter: float, expected: float) -> None:
    """Between half and all of the step."""
    assert policy(jitter).pause(failures) == expected


@given(first=ANY_SECONDS, most=ANY_SECONDS, failures=st.integers(min_value=1, max_value=100_000))
def test_a_pause_is_drawn_from_the_upper_half_of_its_step(first: float, most: float, failures: int) -> None:
    """The step never falls from one failure to the next, and never exceeds the bound."""
    step = RetryPolicy(first, most, lambda: 1.0).pause(failures)
    assert step / 2 <= RetryPolicy(first, most).pause(failures) <= step <= most
    assert step <= RetryPolicy(first, most, lambda: 1.0).pause(failures + 1)


@pytest.mark.parametrize(("asked", "expected"), [(0, 2), (1.5, 2), (7, 7), (3600, 3600)])
def test_what_the_other_side_asks_for_applies_instead(asked: float, expected: float) -> None:
    """Without jitter, and never less than the first step."""
    assert policy(0.0).pause(1, asked) == policy(1.0).pause(9, asked) == expected


def test_settings_make_the_policy() -> None:
    made = RetrySettings(first_seconds=0.5, max_seconds=8).policy
    assert (made.first_seconds, made.max_seconds) == (0.5, 8)
    assert made.pause(1) != made.pause(1)


@pytest.mark.parametrize(
    "data", [{"first_seconds": 61}, {"first_seconds": 0}, {"first_seconds": 2, "max_seconds": 1}, {"backoff": 1}]
)
def test_settings_that_make_no_sense_are_refused(data: dict[str, float]) -> None:
    """A retry without a pause is none that an operator wants."""
    with pytest.raises(ValidationError):
        RetrySettings.model_validate(data)


@pytest.mark.parametrize(
    ("retry", "first", "most", "tries"),
    [
        (ConsumerSettings().retry, 1, 60, None),
        (SubscriberSettings().retry, 1, 60, 5),
        (ProcessorSettings().retry, 0.5, 30, 6),
        (TransferParameters().retry, 0.5, 8, 4),
        (CallbackSettings.model_validate({"token_file": "t"}).retry, 2, 900, None),
    ],
)
def test_every_user_has_the_same_names_and_its_own_defaults(
    retry: RetrySettings, first: float, most: float, tries: int | None
) -> None:
    assert (retry.first_seconds, retry.max_seconds, getattr(retry, "max_tries", None)) == (first, most, tries)
    assert math.isclose(type(retry).model_validate({"first_seconds": first / 2}).max_seconds, most)
