"""Records as CloudEvents' own library reads and writes them (Kafka binding, binary mode)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event

from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, EventHeaders, event_id
from pipeline.contracts.weavr import KINDS, EventKind
from pipeline.sandbox.weavr.bodies import body_of

RECEIVED = datetime(2026, 3, 1, 12, 30, 0, 123_000, tzinfo=UTC)
AS_RECEIVED = (
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (INTEGRATION_HEADER, b"acme"),
    (PATH_HEADER, b"/managed_cards/authorisations/watch"),
    ("call-ref", b"r\xc3\xa9f-1"),
    ("published-timestamp", b"1772368200123"),
    ("signature-v2", b"c3ludGhldGlj"),
)


def record(kind: EventKind) -> KafkaMessage:
    """A record as the ingress writes it."""
    data = body_of(kind.path, Random(kind.type))  # noqa: S311 - the same each time
    body = json.dumps(data, ensure_ascii=False).encode()
    key = kind.key("acme", data)
    headers = EventHeaders(
        id=event_id("acme", kind.path, "réf-1", body),
        source="/webhooks/weavr/acme",
        type=kind.type,
        subject=kind.subject(data),
        time=RECEIVED,
        partition_key=key,
        dataschema=kind.dataschema,
    )
    return KafkaMessage(headers=dict(headers.encode(AS_RECEIVED)), key=key.encode(), value=body)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_the_library_reads_our_attributes_and_data(kind: EventKind) -> None:
    message = record(kind)
    event = from_binary_event(message)
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": message.headers["ce_id"].decode(),
        "source": "/webhooks/weavr/acme",
        "type": kind.type,
        "subject": message.headers["ce_subject"].decode(),
        "time": RECEIVED,
        "partitionkey": message.headers["ce_partitionkey"].decode(),
        "dataschema": kind.dataschema,
        "datacontenttype": "application/json",
    }
    assert event.get_data() == json.loads(message.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_what_the_library_writes_of_it_is_what_it_read(kind: EventKind) -> None:
    message = record(kind)
    written = to_binary_event(from_binary_event(message))
    attributes = {name: value for name, value in message.headers.items() if name not in dict(AS_RECEIVED)}
    assert written.headers == attributes
    assert written.key == message.headers["ce_partitionkey"].decode()
    assert json.loads(written.value) == json.loads(message.value)
