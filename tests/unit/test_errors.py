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
