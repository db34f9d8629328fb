"""The description, read; and that it and the pipeline's own table say the same."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from pipeline.contracts import event_id
from pipeline.contracts.weavr import KINDS, EventKind
from pipeline.sandbox.weavr import body_of, entity_in, expected_id, weavr_kinds
from pipeline.sandbox.weavr.facts import Field, _plain
from pipeline.sandbox.weavr.values import value_of


def row(**changes: object) -> Mapping[str, Any]:
    return {"path": "field", "type": "string", "required": True, "constraint": "", **changes}


def test_a_type_of_an_unknown_form_is_an_error() -> None:
    """A newer description must not be read half."""
    with pytest.raises(ValueError, match="field: the type 'set of string' is of no known form"):
        _plain("field", "set of string", row(), (), required=True)


def test_a_pattern_that_nobody_can_fill_is_an_error() -> None:
    with pytest.raises(ValueError, match="is not known"):
        value_of(Field("field", "string", required=True, pattern="^x{7}$"))


def test_a_pattern_that_the_file_cuts_off_is_none() -> None:
    assert _plain("field", "string", row(constraint="pattern `^[a-z…`; len 0..27"), (), required=True) == Field(
        "field", "string", required=True, longest=27
    )


def test_enums_stand_in_the_constraint_where_they_have_no_name() -> None:
    field = _plain("field", "string", row(constraint="enum `A` / `B`; **deprecated**"), (), required=False)
    assert field.values == ("A", "B")


def test_the_pipelines_table_has_the_same_kinds() -> None:
    """Two readings of one description, independent of each other."""
    mine = {path: (f"card-events.{kind.category}", kind.signed) for path, kind in weavr_kinds().items()}
    assert {kind.path: (kind.topic.value, kind.signed) for kind in KINDS} == mine


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.path)
def test_what_an_event_is_about_is_the_same_for_both(kind: EventKind) -> None:
    """One entity here is one key there, and two are two."""
    keys = {}
    for entity in ("90000000000000001", "90000000000000002"):
        bodies = [body_of(kind.path, Random(seed), fields="some", entity=entity) for seed in range(20)]  # noqa: S311 - test data
        keys[entity] = {kind.key("acme", body) for body in bodies}
        assert len({entity_in(kind.path, body) for body in bodies}) == len(keys[entity]) == 1
    assert keys["90000000000000001"] != keys["90000000000000002"]


@pytest.mark.parametrize(("reference", "parts"), [("ref", ("ref", b"{}")), ("", ("", "123", b"{}"))])
def test_the_identity_is_the_same_for_both(reference: str, parts: tuple[str | bytes, ...]) -> None:
    mine = expected_id("acme", "/login/watch", reference, b"{}", "123")
    assert mine == event_id("acme", "/login/watch", *parts)
