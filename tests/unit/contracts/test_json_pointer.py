"""JSON pointers, on the examples of RFC 6901."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.contracts.json_pointer import POINTER, Pointer, value_at

RFC_6901: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_a_pointer_names_what_the_rfc_says(pointer: str, expected: object) -> None:
    assert TypeAdapter(Pointer).validate_python(pointer) == pointer
    assert value_at(RFC_6901, pointer) == expected


@pytest.mark.parametrize(
    "pointer", ["/no", "/foo/2", "/foo/01", "/foo/-", "/foo/-1", "/foo/x", "/foo/0/0", "/a/b", f"/foo/{'9' * 400}"]
)
def test_what_is_not_there_is_not_found(pointer: str) -> None:
    with pytest.raises(LookupError):
        value_at(RFC_6901, pointer)


@pytest.mark.parametrize("document", [None, "text", 7, True])
def test_only_tables_and_lists_hold_values(document: Any) -> None:
    with pytest.raises(LookupError):
        value_at(document, "/0")


@pytest.mark.parametrize("text", ["", "a", "/~", "/~2", "data.id"])
def test_anything_else_is_no_pointer(text: str) -> None:
    assert re.fullmatch(POINTER, text) is None
    with pytest.raises(ValidationError):
        TypeAdapter(Pointer).validate_python(text)
