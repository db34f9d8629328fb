"""Segments with right hashes and wrong contents, as an attacker could write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.audit.reading import Damage, SegmentReader
from pipeline.audit.segments import GENESIS, Closing, SegmentPosition, digest_of

POSITION = SegmentPosition("audit.events", 3, 0, 4)
HEADER = {
    "line": 1, "kind": "segment", "format": 1, "topic": "audit.events", "partition": 3, "epoch": 0, "segment": 4,
    "previous": GENESIS, "writer": "w", "at": "2026-01-22T12:00:00+00:00",
}  # fmt: skip
EVENT = {"line": 2, "kind": "event", "topic": "audit.events", "partition": 3, "offset": 8, "id": "a"}
CLOSING = {
    "line": 4, "kind": "closing", "events": 2, "total": 9, "first_offset": 8, "last_offset": 9, "next_epoch": None,
    "signed_by": None,
}  # fmt: skip
SECOND = {**EVENT, "line": 3, "offset": 9}


def sealed(*lines: dict[str, Any]) -> bytes:
    """Return lines with their hashes."""
    running, found = GENESIS, b""
    for line in lines:
        text = json.dumps(line).encode()[:-1]
        running = digest_of(text, running)
        found += text + b',"hash":"' + running.encode() + b'"}\n'
    return found


def read(data: bytes, pieces: int = 1 << 20) -> Closing | Damage:
    reader = SegmentReader(POSITION)
    for start in range(0, len(data), pieces):
        reader.feed(data[start : start + pieces])
    return reader.finish()


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_the_cutting_of_the_input_does_not_matter(pieces: int) -> None:
    found = read(sealed(HEADER, EVENT, SECOND, CLOSING), pieces)
    assert isinstance(found, Closing)
    assert (found.events, found.first_offset, found.last_offset, found.total) == (2, 8, 9, 9)


@pytest.mark.parametrize(
    ("lines", "line", "kind"),
    [
        ([{**HEADER, "segment": 5}, EVENT, SECOND, CLOSING], 1, "swapped"),
        ([{**HEADER, "format": 2}, EVENT, SECOND, CLOSING], 1, "changed"),
        ([{**HEADER, "at": "yesterday"}, EVENT, SECOND, CLOSING], 1, "changed"),
        ([HEADER, {**EVENT, "partition": 4}, SECOND, CLOSING], 2, "swapped"),
        ([HEADER, {**EVENT, "topic": "other"}, SECOND, CLOSING], 2, "swapped"),
        ([HEADER, EVENT, {**SECOND, "offset": 8}, CLOSING], 3, "forked"),
        ([HEADER, EVENT, {**SECOND, "line": 2}, CLOSING], 3, "swapped"),
        ([HEADER, EVENT, {**SECOND, "kind": "note"}, CLOSING], 3, "changed"),
        ([HEADER, EVENT, {**SECOND, "offset": "9"}, CLOSING], 3, "changed"),
        ([HEADER, EVENT, {"line": 3}, CLOSING], 3, "changed"),
        ([HEADER, EVENT, SECOND, {**CLOSING, "events": 3}], 4, "changed"),
        ([HEADER, EVENT, SECOND, {**CLOSING, "first_offset": 7}], 4, "changed"),
        ([HEADER, EVENT, SECOND, {**CLOSING, "last_offset": None}], 4, "changed"),
        ([HEADER, EVENT, SECOND, CLOSING, {**SECOND, "line": 5}], 5, "changed"),
    ],
)
def test_right_hashes_do_not_help(lines: list[dict[str, Any]], line: int, kind: str) -> None:
    found = read(sealed(*lines))
    assert isinstance(found, Damage)
    assert (found.line, found.kind.value) == (line, kind)


def test_a_key_that_is_not_written_as_ours_names_no_position() -> None:
    assert SegmentPosition.parse(POSITION.key) == POSITION
    for key in (
        "audit/audit.events/3/0/4.jsonl",
        POSITION.key + "x",
        "jobs/" + POSITION.key,
        POSITION.key.replace("0", "\u0660"),
    ):
        assert SegmentPosition.parse(key) is None
