"""The forms that values have on the wire, and the one that subscribers see."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.contracts.weavr import Instant, WeavrObject
from pipeline.contracts.weavr.wire import DEPRECATED, Amount, Id, Integer, Known, Scale, Written

LAST_MS = 253_402_300_799_999


class Values(WeavrObject):
    """One of each."""

    id: Id | None = None
    amount: Amount | None = None
    count: Integer | None = None
    scale: Scale | None = None
    at: Instant | None = None


def read(name: str, value: object) -> Values:
    event = Values.model_validate({name: value})
    assert Values.model_validate_json(json.dumps({name: value})) == event
    assert event.as_received() == {name: value}
    assert copy.deepcopy(event).as_received() == {name: value}
    return event


@pytest.mark.parametrize("wire", ["9007199254740993", 9007199254740993, "007", "", "card_7f", 0, 2**63 + 1, -1])
def test_an_id_is_text(wire: str | int) -> None:
    """Every digit of it, above 2^53 as well; letters fit too, since Weavr changes forms and we do not compute."""
    found = read("id", wire).id
    assert found == str(wire)
    assert isinstance(found, str)


@pytest.mark.parametrize("name", ["id", "amount", "count", "scale", "at"])
@pytest.mark.parametrize(
    "wire", [1.0, 1.5, 9007199254740993.0, True, False, ["1"], {"id": "1"}, "1.5", "1e3", "½", "٣"]
)
def test_a_number_is_whole(name: str, wire: object) -> None:
    """A float has lost digits before we see it, and a boolean is none; there is one finding, of one place."""
    if name == "id" and isinstance(wire, str):
        return  # the id of tomorrow
    with pytest.raises(ValidationError) as caught:
        Values.model_validate({name: wire})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]
    with pytest.raises(ValidationError):
        Values.model_validate_json(json.dumps({name: wire}))


@pytest.mark.parametrize(
    ("wire", "expected"),
    [("1050", 1050), (1050, 1050), ("-1050", -1050), (-1050, -1050), ("0010", 10), ("0", 0), (2**63, 2**63)],
)
def test_an_amount_is_a_number(wire: str | int, expected: int) -> None:
    """Negative ones fit, although the description's pattern knows none."""
    assert read("amount", wire).amount == expected


@pytest.mark.parametrize(
    "wire", ["", " 1", "1 ", "+1", "1_000", "--1", "-", "0x1", "9" * 39, "1\n", "1.5", "1e3", "½", "٣"]
)
def test_text_that_is_no_number_does_not_fit(wire: str) -> None:
    for name in ("amount", "count", "at"):
        with pytest.raises(ValidationError, match=name):
            Values.model_validate({name: wire})


@pytest.mark.parametrize("wire", [-129, 128, "-129", "128"])
def test_a_scale_is_bounded(wire: str | int) -> None:
    with pytest.raises(ValidationError, match="scale"):
        Values.model_validate({"scale": wire})


@pytest.mark.parametrize("wire", [1769122000123, "1769122000123", "01769122000123"])
def test_a_time_is_a_moment_in_utc(wire: str | int) -> None:
    found = read("at", wire).at
    assert found is not None
    assert found.at == datetime(2026, 1, 22, 22, 46, 40, 123_000, tzinfo=UTC)
    assert found.at.tzinfo is UTC
    assert (found.ms, str(found)) == (1769122000123, "2026-01-22T22:46:40.123Z")


@pytest.mark.parametrize("wire", [-1, LAST_MS + 1, "-1", str(LAST_MS + 1), "9" * 38, 10**30])
def test_a_time_that_no_calendar_has_does_not_fit(wire: str | int) -> None:
    with pytest.raises(ValidationError, match="at"):
        Values.model_validate({"at": wire})


@given(st.integers(0, LAST_MS), st.integers(0, LAST_MS))
def test_times_are_ordered_as_instants(one: int, other: int) -> None:
    """However they are written; and every time that fits has a moment."""
    written, counted = read("at", str(one)).at, read("at", other).at
    assert written is not None
    assert counted is not None
    assert (written < counted, written == counted) == (one < other, one == other)
    assert written.at - counted.at == timedelta(milliseconds=one - other)


def test_a_schema_names_binding_forms_and_documented_ones() -> None:
    """``pattern`` and bounds hold; what begins with ``x-`` is to be known."""

    class Documented(Values):
        kind: Annotated[str, Known("NEW OLD")]
        code: Annotated[Annotated[str, Written("^[A-Z]{3}$")] | None, DEPRECATED] = None

    found = Documented.model_json_schema()["properties"]
    assert found["kind"] == {"title": "Kind", "type": "string", "x-known-values": ["NEW", "OLD"]}
    assert (found["code"]["deprecated"], found["code"]["anyOf"][0]["x-pattern"]) == (True, "^[A-Z]{3}$")
    assert found["id"]["anyOf"][0] == {"type": ["string", "integer"], "x-pattern": "^[0-9]+$"}
    assert found["amount"]["anyOf"][0]["pattern"] == "^-?[0-9]{1,38}$"
    assert (found["scale"]["anyOf"][0]["minimum"], found["scale"]["anyOf"][0]["maximum"]) == (-128, 127)
    assert (found["at"]["anyOf"][0]["minimum"], found["at"]["anyOf"][0]["maximum"]) == (0, LAST_MS)
