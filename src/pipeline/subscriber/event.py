"""The event that a handler gets, and its decoding from a record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from pipeline.contracts import Headers, Record
from pipeline.contracts.bodies import json_value, says_json
from pipeline.contracts.frozen import quick
from pipeline.contracts.strict_json import InvalidBody
from pipeline.errors import PoisonRecord
from pipeline.subscriber.models import MODELS, SCHEMAS

Data = TypeVar("Data", covariant=True)  # noqa: PLC0105 - the name appears in signatures

_LAST_MS: Final = 253_402_300_799_000
"""About the largest timestamp that a datetime can hold, in milliseconds: producers may write any number."""
_MOST_FINDINGS: Final = 5
_FIELD_NAME: Final = re.compile(r"[A-Za-z_]{1,64}")


@dataclass(frozen=True, slots=True)
class Event(Generic[Data]):
    """One event. Its ``repr`` shows no data of it.

    Attributes:
        id: Equal ids mean the same event (``ce_id``).
        type: Such as ``weavr.managed_cards.authorisations`` (``ce_type``).
        subject: Its subject, such as ``card/1234`` (``ce_subject``).
        time: When the pipeline received it (``ce_time``), with a zone.
        key: The record's key; events with the same key are handled one after another.
        source: The webhook that received it, such as ``/webhooks/weavr/acme`` (``ce_source``).
        data: The body as an instance of the type's model. For a type without a model, or a handler with ``raw=True``:
            the JSON value of the body, also of a form, or None if it is not JSON.
        raw: The body as received, byte for byte, possibly compressed (header ``content-encoding``).
        headers: All headers of the record, including the sender's signature.
        topic: Logical name, without the cluster's prefix.
        attempt: 1 for the first call; each retry in this process adds 1.
        timestamp_ms: The record's time in Kafka, epoch milliseconds.
    """

    id: str
    type: str
    subject: str
    time: datetime
    key: str
    source: str
    data: Data = field(repr=False)
    raw: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    topic: str
    partition: int
    offset: int
    attempt: int
    timestamp_ms: int


_event: Final = quick(Event)


def event_of_record(record: Record, models: Mapping[str, type[BaseModel] | None]) -> Event[Any]:
    """Decode a record into an event.

    Args:
        record: The consumed record.
        models: Models by event type. With None, the handler gets plain JSON of any version.

    Raises:
        PoisonRecord: The record is not an event, the model does not know its version, or its body does not fit.
    """
    ident, kind = record.text("ce_id"), record.text("ce_type")
    if not ident or not kind:
        raise PoisonRecord("event_not_named", "The record has no header ce_id or ce_type: it carries no event.")
    model = models.get(kind)
    if model is not None and model is MODELS.get(kind):
        _ensure_known(kind, record.named.get("ce_dataschema"))
    return _event(
        ident,
        kind,
        record.text("ce_subject"),
        _time(record.text("ce_time"), record.timestamp_ms),
        record.key,
        record.text("ce_source"),
        _data(record, model, always_json=kind in models),
        record.value,
        record.headers,
        str(record.topic),
        record.partition,
        record.offset,
        record.attempt,
        record.timestamp_ms,
    )


def _ensure_known(kind: str, schema: bytes | None) -> None:
    known = SCHEMAS.get(kind)
    if schema is not None and known is not None and schema.decode("utf-8", "replace") != known:
        raise PoisonRecord(
            "event_version_unknown", f"The event has another schema than {known}: update this library, then replay it."
        )


def _data(record: Record, model: type[BaseModel] | None, *, always_json: bool) -> Any:
    if not always_json and not says_json(record.text("content-type")):
        return None
    try:
        body = json_value(record)
    except InvalidBody as error:
        why = "; ".join(f"{one.field or 'body'}: {one.rule}" for one in error.findings)
    else:
        return _modelled(body, model) if model else _plain(body)
    raise PoisonRecord("event_not_json", f"The body cannot be read as its headers say: {why}.")


def _modelled(body: bytes, model: type[BaseModel]) -> BaseModel:
    try:
        found: BaseModel = model.__pydantic_validator__.validate_json(body)
    except ValidationError as error:
        # the texts of the errors may quote received data
        findings = "; ".join(
            f"{'.'.join(map(_speakable, one['loc'])) or 'body'}: {one['type']}"
            for one in error.errors(include_input=False, include_url=False, include_context=False)[:_MOST_FINDINGS]
        )
    else:
        return found
    raise PoisonRecord("event_unfit", f"The body does not fit {model.__name__}: {findings}.")


def _speakable(step: int | str) -> str:
    return str(step) if isinstance(step, int) or _FIELD_NAME.fullmatch(step) else "?"


def _plain(body: bytes) -> Any:
    try:
        # twice as fast as json.loads, with the same result
        return from_json(body)
    except ValueError:
        pass  # json.loads also accepts lone surrogates, deep nesting and other encodings
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass  # do not chain the error: its text may quote the body
    raise PoisonRecord("event_not_json", "The body says that it is JSON and is not.")


def _time(text: str, timestamp_ms: int) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.fromtimestamp(min(max(0, timestamp_ms), _LAST_MS) / 1000, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
