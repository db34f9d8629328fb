"""What a record of an event shows of itself: place, attributes, and its body masked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final

from pydantic import JsonValue

from pipeline.cli.event_body import masked_body
from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, Record, first_values
from pipeline.observability import mask_text

_ATTRIBUTES: Final = "ce_"
_DEAD_LETTER: Final = "dlq_"
"""Of dead letters: where from, and why."""
_LAST_MS: Final = 253_402_300_799_000
"""The last millisecond that a datetime can say, about: producers may write any number."""
_SHOWN: Final = {"integration": INTEGRATION_HEADER, "path": PATH_HEADER, "traceparent": "traceparent"}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted; what is empty or None lets everything through.

    Attributes:
        types: Of which type one must be; ``*`` stands for anything.
        key: The record's key.
        integration: Whose webhook it came by.
        subject: What it is about.
    """

    types: tuple[str, ...] = ()
    key: str | None = None
    integration: str | None = None
    subject: str | None = None

    def lets_through(self, record: Record) -> bool:
        """Return whether a record is wanted."""
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


def place(record: Record) -> dict[str, JsonValue]:
    """Return where a record stands."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def document(record: Record) -> dict[str, JsonValue]:
    """Return a record as JSON: no signature, no value that is not known to be harmless."""
    headers = first_values(record.headers)
    at = datetime.fromtimestamp(min(max(0, record.timestamp_ms), _LAST_MS) / 1000, UTC)
    return {
        **place(record),
        "at": at.isoformat(timespec="milliseconds"),
        "key": record.key,
        **{name: value for name, value in headers.items() if name.startswith(_ATTRIBUTES)},
        **{name: mask_text(value) for name, value in headers.items() if name.startswith(_DEAD_LETTER)},
        **{name: headers[header] for name, header in _SHOWN.items() if header in headers},
        "bytes": len(record.value),
        "body": masked_body(record),
    }


def head(record: Record) -> str:
    """Return when, where and what a record is, for people."""
    shown = document(record)
    attributes = {
        "type": shown.get("ce_type"),
        "subject": shown.get("ce_subject"),
        "key": shown["key"],
        "dlq_code": shown.get("dlq_code"),
        "dlq_message": shown.get("dlq_message"),
    }
    told = "  ".join(f"{name}={value}" for name, value in attributes.items() if value)
    return f"{shown['at']}  {record.topic}/{record.partition}/{record.offset}  {told}"
