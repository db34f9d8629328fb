"""Shows a record of an event: position, attributes and masked body. If unsure, it shows less."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final, cast

from pydantic import JsonValue

from pipeline.contracts import ENCODING_HEADER, INTEGRATION_HEADER, PATH_HEADER, SPECS, Record, first_values
from pipeline.contracts.bodies import FORM, json_value, media_type_of
from pipeline.contracts.sensitive import MASK
from pipeline.contracts.strict_json import InvalidBody
from pipeline.contracts.weavr import BY_TYPE, masked
from pipeline.observability import FOREIGN_DIGITS, is_secret_name, mask_text

_ATTRIBUTES: Final = "ce_"
_DEAD_LETTER: Final = "dlq_"
"""Headers of dead letters that name the origin and the reason."""
_LAST_MS: Final = 253_402_300_799_000
"""About the largest timestamp that a datetime can hold, in milliseconds: producers may write any number."""
_SHOWN: Final = {
    "integration": INTEGRATION_HEADER,
    "path": PATH_HEADER,
    "traceparent": "traceparent",
    "content_encoding": ENCODING_HEADER,
}

_MEDIA_TYPES: Final = frozenset(
    {"application/json", "application/cloudevents+json", "application/octet-stream", "text/json", "text/plain", FORM}
)
_OUR_OWN: Final = frozenset(name for name, spec in SPECS.items() if "-events." not in name and not spec.sensitive)
_IDENTIFIER: Final = re.compile(r"ids?|timestamp|[A-Za-z]+(?:Ids?|Timestamp|Date)")
"""Fields that hold ids and times, whose long numbers look like card numbers."""
_NAME: Final = re.compile(r"[A-Za-z_](?:[A-Za-z_.-]|\d(?!\d{3})){0,63}")
"""The form of a field's name. Any other key of an object may be a value, such as an address or a number."""
_UNNAMED: Final = "(name)"
_KINDS: Final = {str: "(text)", int: "(number)", float: "(number)", bool: "(boolean)"}


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter for records; an empty or None attribute accepts all.

    Attributes:
        types: Accepted types; ``*`` matches anything.
        key: The record's key.
        integration: The integration whose webhook received it.
        subject: Its subject, e.g. ``card/1234``.
    """

    types: tuple[str, ...] = ()
    key: str | None = None
    integration: str | None = None
    subject: str | None = None

    def accepts(self, record: Record) -> bool:
        """Return whether the filter accepts a record."""
        headers = first_values(record.headers)
        pairs = (
            (self.key, record.key),
            (self.integration, headers.get(INTEGRATION_HEADER)),
            (self.subject, headers.get("ce_subject")),
        )
        kind = headers.get("ce_type", "")
        return all(wanted in (None, found) for wanted, found in pairs) and (
            not self.types or any(fnmatchcase(kind, pattern) for pattern in self.types)
        )


def position(record: Record) -> dict[str, JsonValue]:
    """Return topic, partition and offset of a record."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def _content_type(received: str) -> str | None:
    """Return a known media type; ``other`` for any other, since the sender may write anything there."""
    media_type = media_type_of(received)
    return (media_type if media_type in _MEDIA_TYPES else "other") if media_type else None


def document(record: Record) -> dict[str, JsonValue]:
    """Return a record as JSON, without its signature, and with only those values that are known to be harmless."""
    headers = first_values(record.headers)
    at = datetime.fromtimestamp(min(max(0, record.timestamp_ms), _LAST_MS) / 1000, UTC)
    return {
        **position(record),
        "at": at.isoformat(timespec="milliseconds"),
        "key": record.key,
        **{name: value for name, value in headers.items() if name.startswith(_ATTRIBUTES)},
        **{name: mask_text(value) for name, value in headers.items() if name.startswith(_DEAD_LETTER)},
        **{name: headers[header] for name, header in _SHOWN.items() if header in headers},
        "content_type": _content_type(headers.get("content-type", "")),
        "bytes": len(record.value),
        "body": masked_body(record),
    }


def head(record: Record) -> str:
    """Return time, position and attributes of a record in one line, for people."""
    shown = document(record)
    attributes = {
        "type": shown.get("ce_type"),
        "subject": shown.get("ce_subject"),
        "key": shown["key"],
        "dlq_code": shown.get("dlq_code"),
        "dlq_message": shown.get("dlq_message"),
    }
    text = "  ".join(f"{name}={value}" for name, value in attributes.items() if value)
    return f"{shown['at']}  {record.topic}/{record.partition}/{record.offset}  {text}"


def masked_body(record: Record) -> JsonValue:
    """Return the body, masked except for values that are known to be harmless; None if it is not JSON.

    Weavr's events keep the known fields that are not sensitive. The pipeline's own job events keep their texts, masked
    by patterns. All other bodies keep only the names of their fields.
    """
    kind = BY_TYPE.get(first_values(record.headers).get("ce_type", ""))
    try:
        data = json.loads(json_value(record))
        if kind is not None and isinstance(data, dict):
            return _numbers_masked(masked(kind, data))
        return _masked_texts(data) if record.topic in _OUR_OWN else _outline(data)
    except (InvalidBody, ValueError, RecursionError):
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
