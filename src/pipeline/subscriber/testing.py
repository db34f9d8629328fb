"""For tests of handlers, without Kafka. Public API.

event = event_of(ManagedCardsAuthorisationEvent, {"id": {"id": "1234"}})
assert (await run_handler(subscriber, event)).result == "done"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar, overload

from pydantic import BaseModel

from pipeline.contracts import EventHeaders, Record, Topic, event_id
from pipeline.contracts.weavr import BY_TYPE
from pipeline.errors import PermanentError, TransientError
from pipeline.subscriber.event import Event, event_of_record
from pipeline.subscriber.handler_call import HandlerCall
from pipeline.subscriber.models import MODELS, types_of
from pipeline.subscriber.subscriber import Subscriber

__all__ = ["Outcome", "event_of", "run_handler"]

Model = TypeVar("Model", bound=BaseModel)

_NOON: Final = datetime(2026, 1, 22, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a subscriber would do with an event.

    Attributes:
        result: ``done``: handled; ``retry``: to be retried; ``dead-letter``: to be dead-lettered; ``passed-over``: no
            handler for its type.
        code: Stable name of the reason (docs/reference/errors.md), or None.
        message: The reason, or None.
        retry_after: The pause in seconds that the handler requested, or None.
    """

    result: Literal["done", "retry", "dead-letter", "passed-over"]
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None


@overload
def event_of(
    what: type[Model],
    body: Mapping[str, Any] | bytes,
    *,
    key: str | None = ...,
    integration: str = ...,
    time: datetime = ...,
    attempt: int = ...,
) -> Event[Model]: ...


@overload
def event_of(
    what: str,
    body: Mapping[str, Any] | bytes,
    *,
    key: str | None = ...,
    integration: str = ...,
    time: datetime = ...,
    attempt: int = ...,
    model: type[BaseModel] | None = ...,
) -> Event[Any]: ...


def event_of(
    what: type[BaseModel] | str,
    body: Mapping[str, Any] | bytes,
    *,
    key: str | None = None,
    integration: str = "test",
    time: datetime = _NOON,
    attempt: int = 1,
    model: type[BaseModel] | None = None,
) -> Event[Any]:
    """Return an event for a test, as a handler would get it.

    Args:
        what: The model of the body, or the event's type.
        body: The fields, with their names on the wire; or the raw bytes.
        key: Default: the key that the ingress would choose.
        integration: The integration that received it.
        time: When it was received.
        attempt: Number of the attempt.
        model: The model of the body, for a type without a published model.

    Raises:
        ValueError: The model belongs to no event type.
        PoisonRecord: The body does not fit the model: a subscriber would dead-letter the event.
    """
    kind = what if isinstance(what, str) else types_of(what)[0]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    known = BY_TYPE.get(kind)
    about = known.subject(_fields(body)) if known else kind
    headers = EventHeaders(
        id=event_id(integration, kind, raw),
        source=f"/webhooks/weavr/{integration}",
        type=kind,
        subject=about,
        time=time,
        partition_key=key or f"{integration}/{about}",
    )
    topic = known.topic.value if known else kind if kind in set(Topic) else f"webhook-events.{integration}"
    record = Record(topic, 0, 0, headers.partition_key, raw, headers.encode(), round(time.timestamp() * 1000), attempt)
    return event_of_record(record, {**MODELS, **({kind: model} if model else {})})


def _fields(body: Mapping[str, Any] | bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body) if isinstance(body, bytes) else body
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


async def run_handler(subscriber: Subscriber, event: Event[Any]) -> Outcome:
    """Call a subscriber's handler for an event, after decoding the event as in production.

    It makes one attempt, ``event.attempt``. If that is the last one (``retry.max_tries``), an error is a dead letter.

    Raises:
        FatalError: An error that would stop the subscriber.
    """
    handlers = subscriber._handlers  # noqa: SLF001 - one package
    if not handlers.handles(event.type):
        return Outcome("passed-over")
    record = Record(
        event.topic,
        event.partition,
        event.offset,
        event.key,
        event.raw,
        event.headers,
        event.timestamp_ms,
        event.attempt,
    )
    try:
        await HandlerCall(handlers, max_tries=subscriber._settings.retry.max_tries)(record)  # noqa: SLF001 - one package
    except TransientError as error:
        return Outcome("retry", error.code, error.message, error.retry_after)
    except PermanentError as error:
        return Outcome("dead-letter", error.code, error.message)
    return Outcome("done")
