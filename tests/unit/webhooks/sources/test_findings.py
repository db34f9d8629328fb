from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.contracts.strict_json import Finding
from pipeline.webhooks.sources.findings import findings_of


class _Other(BaseModel):
    flag: bool


def test_error_without_words_of_its_own_is_described_in_general_ones() -> None:
    """A kind of error that the table does not hold, say after an upgrade, still names its field."""
    with pytest.raises(ValidationError) as caught:
        _Other.model_validate({"flag": "perhaps"})
    assert findings_of(caught.value) == [Finding("flag", "invalid", "Compare this field with the data contract")]


class _Many(BaseModel):
    flags: tuple[bool, ...]


def test_more_errors_than_anybody_reads_are_one_finding() -> None:
    """Each error that is listed costs time, and a body of a quarter of a megabyte has room for 100,000 of them."""
    with pytest.raises(ValidationError) as caught:
        _Many.model_validate({"flags": ["perhaps"] * 10_001})
    assert [(one.field, one.rule) for one in findings_of(caught.value)] == [("", "too_many_faults")]
