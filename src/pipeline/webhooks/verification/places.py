"""Where something stands in a request: in a header, in a field of the body, in a field of the signature's header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

HEADER_NAME: Final = r"^[A-Za-z0-9!#$%&'*+.^`|~-]{1,128}$"

HeaderName = Annotated[str, Field(pattern=HEADER_NAME)]
"""An HTTP header name (RFC 9110 token); underscores are left out, since proxies drop such headers silently."""

_NAME: Final = re.compile(HEADER_NAME)
_POINTER: Final = re.compile(r"(/([^~/]|~[01])*)+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Place:
    """One place, as it is written ``header:NAME``, ``json:/pointer`` (RFC 6901) or ``field``.

    Attributes:
        kind: Which of the three.
        value: Name of the header, or the pointer; empty for ``field``.
    """

    kind: Literal["header", "json", "field"]
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place that a setting names.

        Raises:
            ValueError: It is none of the three forms.
        """
        kind, colon, value = text.partition(":")
        if text == "field":
            return cls("field")
        if kind == "header" and _NAME.fullmatch(value):
            return cls("header", value)
        if kind == "json" and colon and _POINTER.fullmatch(value):
            return cls("json", value)
        raise ValueError(f"{text!r} names no place: write 'header:NAME' or 'json:/pointer'")


@dataclass(frozen=True, slots=True)
class SignedPart:
    """One part of what is signed.

    Attributes:
        kind: The raw body, the timestamp's text, a header's value, or text that is always the same.
        value: Name of the header, or the text.
        needed: Whether a request without this header is refused; otherwise it counts as empty.
    """

    kind: Literal["body", "timestamp", "header", "text"]
    value: str = ""
    needed: bool = True

    @classmethod
    def parse(cls, text: str) -> SignedPart:
        """Return the part that a setting names.

        Raises:
            ValueError: It is none of the known forms.
        """
        kind, _, value = text.partition(":")
        if text == "body":
            return cls("body")
        if text == "timestamp":
            return cls("timestamp")
        if kind in {"header", "header?"} and _NAME.fullmatch(value):
            return cls("header", value, needed=kind == "header")
        if kind == "text" and value:
            return cls("text", value)
        raise ValueError(
            f"{text!r} names nothing that can be signed: write 'body', 'timestamp', 'header:NAME', "
            "'header?:NAME' (missing counts as empty) or 'text:LITERAL'"
        )


def value_at(document: JsonValue, pointer: str) -> JsonValue:
    """Return what a JSON pointer (RFC 6901) names.

    Raises:
        LookupError: There is nothing at that place.
    """
    value = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key):
            value = value[int(key)]
        else:
            raise LookupError(pointer)
    return value
