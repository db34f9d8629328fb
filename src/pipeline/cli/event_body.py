"""What may be shown of an event's body at a terminal: less rather than more."""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

from pydantic import JsonValue

from pipeline.contracts import SPECS, Record, first_values
from pipeline.contracts.sensitive import MASK
from pipeline.contracts.weavr import BY_TYPE, masked
from pipeline.observability import FOREIGN_DIGITS, is_secret_name, mask_text

_OUR_OWN: Final = frozenset(name for name, spec in SPECS.items() if "-events." not in name and not spec.sensitive)
_IDENTIFIER: Final = re.compile(r"ids?|timestamp|[A-Za-z]+(?:Ids?|Timestamp|Date)")
"""Fields that hold ids and times: long numbers, which would pass for card numbers."""
_NAME: Final = re.compile(r"[A-Za-z_](?:[A-Za-z_.-]|\d(?!\d{3})){0,63}")
"""A field's name; what else stands where names stand may be a value, such as an address or a number."""
_UNNAMED: Final = "(name)"
_KINDS: Final = {str: "(text)", int: "(number)", float: "(number)", bool: "(boolean)"}


def masked_body(record: Record) -> JsonValue:
    """Return the body with everything masked that is not known to be harmless; None where it is no JSON.

    Of Weavr's events the known fields that are not sensitive stay; of our own announcements about jobs the texts,
    masked by their patterns; of all others, what fields they have.
    """
    kind = BY_TYPE.get(first_values(record.headers).get("ce_type", ""))
    try:
        data = json.loads(record.value)
        if kind is not None and isinstance(data, dict):
            return _numbers_masked(masked(kind, data))
        return _masked_texts(data) if record.topic in _OUR_OWN else _outline(data)
    except (ValueError, RecursionError):
        return None


def _numbers_masked(data: Any, name: str = "") -> JsonValue:
    if isinstance(data, dict):
        return {inner: _numbers_masked(value, inner) for inner, value in data.items()}
    if isinstance(data, list):
        return [_numbers_masked(value, name) for value in data]
    digits = isinstance(data, int) or (isinstance(data, str) and data.isdecimal())
    if digits and _IDENTIFIER.fullmatch(name):
        return cast("JsonValue", data)
    if isinstance(data, str):
        return mask_text(data)
    text = str(data)
    return cast("JsonValue", data) if mask_text(text) == text else MASK


def _masked_texts(data: Any) -> JsonValue:
    if isinstance(data, dict):
        return {name: MASK if is_secret_name(name) else _masked_texts(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_masked_texts(value) for value in data]
    return mask_text(data, digits=FOREIGN_DIGITS) if isinstance(data, str) else cast("JsonValue", data)


def _outline(data: Any) -> JsonValue:
    if isinstance(data, dict):
        return {name if _NAME.fullmatch(name) else _UNNAMED: _outline(value) for name, value in data.items()}
    if isinstance(data, list):
        return f"(list of {len(data)})"
    return None if data is None else _KINDS[type(data)]
