"""Errors are sorted by what is done about them."""

from __future__ import annotations

import pytest

from pipeline.errors import (
    FatalError,
    LeaseLost,
    Overloaded,
    PermanentError,
    PipelineError,
    PoisonRecord,
    TransientError,
    most_severe,
)


def test_code_and_message_are_apart_and_read_together() -> None:
    error = PermanentError("file_empty", "The file holds no data record.")
    assert (error.code, error.message) == ("file_empty", "The file holds no data record.")
    assert str(error) == "file_empty: The file holds no data record."


def test_the_pause_that_the_other_side_asked_for_goes_along() -> None:
    assert TransientError("x", "y").retry_after is None
    assert TransientError("x", "y", retry_after=2.5).retry_after == 2.5


@pytest.mark.parametrize("kind", [PermanentError, TransientError, Overloaded, LeaseLost, FatalError])
def test_what_is_done_about_one_kind_is_done_about_no_other(kind: type[PipelineError]) -> None:
    others = {PermanentError, TransientError, Overloaded, LeaseLost, FatalError} - {kind}
    assert not any(issubclass(kind, other) for other in others)


def test_a_poison_record_is_permanent() -> None:
    assert issubclass(PoisonRecord, PermanentError)


def test_the_most_severe_error_of_a_group_decides_however_deep_it_is() -> None:
    mild_first: list[Exception] = [
        Overloaded("full", "x"),
        TransientError("away", "x"),
        PermanentError("broken", "x"),
        LeaseLost("lost", "x"),
        FatalError("unusable", "x"),
        ZeroDivisionError("nobody expected it"),
    ]
    for count in range(1, len(mild_first) + 1):
        *others, worst = mild_first[:count]
        assert most_severe(ExceptionGroup("", [*others, ExceptionGroup("", [worst])])) is worst


def test_of_equally_severe_errors_the_first_decides() -> None:
    first, second = PermanentError("a", "x"), PoisonRecord("b", "x")
    assert most_severe(ExceptionGroup("", [first, second])) is first


def test_an_error_of_a_rooms_own_kind_counts_as_a_lost_lease() -> None:
    class Own(PipelineError):
        """Never leaves its package."""

    own = Own("own", "x")
    assert most_severe(ExceptionGroup("", [PermanentError("a", "x"), own])) is own
    assert most_severe(ExceptionGroup("", [own, fatal := FatalError("b", "x")])) is fatal
