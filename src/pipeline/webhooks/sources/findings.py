"""Turns a model's validation errors into findings. Rules have our own names, which no library upgrade changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from pipeline.contracts.strict_json import Finding

_Context = Mapping[str, Any]
_Remedy = Callable[[_Context], str]

_TIME: Final = "Send an ISO 8601 time with a zone, such as 2026-01-22T22:43:59.295Z"
_GUID: Final = "Send a GUID of 32 hexadecimal digits, such as cffde776-1d2a-4614-8023-a5148e411462"

RULES: Final[Mapping[str, tuple[str, _Remedy]]] = {
    "missing": ("required", lambda _: "Send this field"),
    "uuid_type": ("guid", lambda _: _GUID),
    "uuid_parsing": ("guid", lambda _: _GUID),
    "string_type": ("text", lambda _: "Send text in quotes"),
    "string_too_long": ("too_long", lambda context: f"Send at most {context['max_length']} characters"),
    "tuple_type": ("array", lambda _: "Send an array"),
    "too_long": ("too_many", lambda context: f"Send at most {context['max_length']} elements"),
    "int_type": ("integer", lambda _: "Send a whole number without quotes or fraction"),
    "greater_than_equal": ("too_small", lambda context: f"Send at least {context['ge']}"),
    "less_than_equal": ("too_large", lambda context: f"Send at most {context['le']}"),
    "timezone_aware": ("timestamp_zone", lambda _: _TIME),
    "datetime_type": ("timestamp", lambda _: _TIME),
    "datetime_parsing": ("timestamp", lambda _: _TIME),
    "datetime_from_date_parsing": ("timestamp", lambda _: _TIME),
    "value_error": ("timestamp", lambda _: _TIME),
    "id": ("id", lambda _: "Send an id as text, or as a whole number"),
    "whole_number": ("integer", lambda _: "Send a whole number, in quotes or without"),
    "epoch_ms": ("timestamp", lambda _: "Send milliseconds since 1970, in quotes or without"),
    "model_type": ("object", lambda _: "Send an object"),
    "model_attributes_type": ("object", lambda _: "Send an object"),
    "dict_type": ("object", lambda _: "Send an object"),
    "list_type": ("array", lambda _: "Send an array"),
    "bool_type": ("boolean", lambda _: "Send true or false"),
}
"""Error type of pydantic or of the contracts -> rule and remedy; ``value_error`` is ECS's validator of timestamps."""

_NAME: Final = re.compile(r"[A-Za-z_-]{1,64}[0-9]{0,2}")
"""The form of field names. A key of a map may be anything, even a card number."""

_MOST: Final = 20
"""Maximum number of findings in an answer, so that 10,000 wrong elements do not make an answer of a megabyte."""

_TOO_MANY: Final = 10_000
"""With more errors than this, none is listed: 250 kB of wrong elements would block the process for seconds."""

OTHER: Final = ("invalid", lambda _: "Compare this field with the data contract")


def findings_of(error: ValidationError) -> list[Finding]:
    """Return a finding for each of the first 20 errors, without received values."""
    if error.error_count() > _TOO_MANY:
        return [
            Finding("", "too_many_faults", f"Compare the body with the data contract: it breaks it {_TOO_MANY} times")
        ]
    found = error.errors(include_input=False, include_url=False)[:_MOST]
    return [_finding(item["loc"], item["type"], item.get("ctx", {})) for item in found]


def _finding(loc: tuple[int | str, ...], kind: str, context: _Context) -> Finding:
    rule, remedy = RULES.get(kind, OTHER)
    return Finding(".".join(map(_shown, loc)), rule, remedy(context))


def _shown(step: int | str) -> str:
    return str(step) if isinstance(step, int) or _NAME.fullmatch(step) else "?"
