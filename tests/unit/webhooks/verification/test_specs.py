"""Names of a request's values and signed parts, and JSON pointers on the examples of RFC 6901."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.webhooks.verification import RequestValue, SignedPart, value_at

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
    assert RequestValue.parse(f"json:{pointer}") == RequestValue("json", pointer)
    assert value_at(RFC_6901, pointer) == expected


@pytest.mark.parametrize("pointer", ["/no", "/foo/2", "/foo/01", "/foo/-", "/foo/-1", "/foo/x", "/foo/0/0", "/a/b"])
def test_what_is_not_there_is_not_found(pointer: str) -> None:
    with pytest.raises(LookupError):
        value_at(RFC_6901, pointer)


def test_the_forms_of_values_differ() -> None:
    assert RequestValue.parse("header:X-Time") == RequestValue("header", "X-Time")
    assert RequestValue.parse("field") == RequestValue("field")


@pytest.mark.parametrize(
    "text", ["", "body", "header:", "header:a b", "json:", "json:a", "json:/~", "field:x", "Field"]
)
def test_anything_else_names_no_value(text: str) -> None:
    with pytest.raises(ValueError, match="names no value"):
        RequestValue.parse(text)


def test_the_forms_of_signed_parts_differ() -> None:
    written = ("body", "timestamp", "header:X-Id", "header?:X-Id", "text:v0:", "text: ")
    assert [SignedPart.parse(one) for one in written] == [
        SignedPart("body"),
        SignedPart("timestamp"),
        SignedPart("header", "X-Id"),
        SignedPart("header", "X-Id", needed=False),
        SignedPart("text", "v0:"),
        SignedPart("text", " "),
    ]
