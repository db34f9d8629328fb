"""JSON pointers (RFC 6901), with which settings name a value in a JSON document."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field, JsonValue

POINTER: Final = r"(/([^~/]|~[01])*)+"
"""The form of a pointer. It excludes the empty pointer, which names the whole document: no setting needs that."""

Pointer = Annotated[str, Field(pattern=rf"^{POINTER}$")]
"""A setting that holds a pointer, e.g. ``/data/id``."""

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def value_at(document: JsonValue, pointer: str) -> JsonValue:
    """Return the value at a JSON pointer.

    Raises:
        LookupError: The document has no such value.
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
