"""Names of a request's values and signed parts."""

from __future__ import annotations

import pytest

from pipeline.webhooks.verification import RequestValue, SignedPart


@pytest.mark.parametrize("pointer", ["/foo", "/foo/0", "/", "/a~1b", "/m~0n"])
def test_a_value_of_the_body_is_named_by_a_pointer(pointer: str) -> None:
    assert RequestValue.parse(f"json:{pointer}") == RequestValue("json", pointer)


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
