"""``schemas/asyncapi.json``: every topic as an AsyncAPI 3.0 channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.contracts import (
    CLIENT_HEADER,
    DEAD_LETTER_ENDING,
    ENCODING_HEADER,
    FACTS_HEADER,
    INTEGRATION_HEADER,
    PATH_HEADER,
    REPLAY_GROUP_HEADER,
    REPLAYED_FROM_HEADER,
    RETRY_ATTEMPT_HEADER,
    RETRY_CODE_HEADER,
    RETRY_COUNT_HEADER,
    RETRY_DEADLINE_HEADER,
    RETRY_FIRST_AT_HEADER,
    RETRY_GROUP_HEADER,
    SOURCE_TOPICS,
    SPECS,
    TOPICS,
    VERIFIED_BY_HEADER,
    TopicSpec,
)
from tools.contract_table import CONTRACTS, Contract
from tools.markdown import duration

_BINDING: Final = "0.5.0"
_VERSION: Final = "1.0.0"
"""Version of the document's structure. Versions of events are in their schemas."""

HEADERS: Final[Mapping[str, str]] = {
    "ce_specversion": "Always 1.0.",
    "ce_id": "Deterministic: equal ids are the same event, however often the topic holds it. Of Weavr: a hash of "
    "integration, path, `call-ref` (`request-ref` of bulk processes) and body; without one of the timestamp too. Of a "
    "job: a hash of what makes it this step.",
    "ce_source": "Who says it, as a URI reference: `/webhooks/weavr/acme`, `/pipeline/process`. Never a secret segment "
    "of a path.",
    "ce_type": "The kind of event: it decides how the value reads.",
    "ce_subject": "What it is about, such as `card/1234` or a job's GUID.",
    "ce_time": "When it was received or became true (RFC 3339).",
    "ce_partitionkey": "The record's key again.",
    "content-type": "Media type of the value.",
}
"""Headers of every record."""
OPTIONAL_HEADERS: Final[Mapping[str, str]] = {
    "ce_dataschema": "`$id` of the value's schema, with its version.",
    "traceparent": "W3C trace context of the request or the step that led here.",
    INTEGRATION_HEADER: "Name of the webhook that it came in by.",
    ENCODING_HEADER: "How the value is compressed, such as `gzip`; absent where it is not. Of bodies that a sender "
    "compressed: the value is the body as received.",
    PATH_HEADER: "Path that the sender put behind the webhook's own: its name for the kind of event.",
}
AUDIT_HEADERS: Final[Mapping[str, str]] = {
    CLIENT_HEADER: "Address that the webhook came from.",
    VERIFIED_BY_HEADER: "Name of the secret, or of what else proved the webhook authentic; never a secret.",
    FACTS_HEADER: "JSON object with what the audit event says about the webhook: counts, ids, times.",
}
"""Headers of accepted webhooks from which AUDIT builds the audit event."""
COPY_HEADERS: Final[Mapping[str, str]] = {
    REPLAY_GROUP_HEADER: "The one consumer group that a replayed dead letter is for: other groups pass over it.",
    REPLAYED_FROM_HEADER: "The dead letter that was replayed: `<topic>/<partition>/<offset>`.",
    RETRY_GROUP_HEADER: "The one consumer group that a retried record is for: other groups pass over it.",
    RETRY_COUNT_HEADER: "How often the record has waited outside of its topic, from 1.",
    RETRY_FIRST_AT_HEADER: "When it began to wait for the first time (RFC 3339).",
    RETRY_CODE_HEADER: "Why it waited last (docs/reference/errors.md).",
    RETRY_ATTEMPT_HEADER: "The attempt of the job that waited, once its announcement is stored.",
    RETRY_DEADLINE_HEADER: "The job's deadline when the record began to wait (RFC 3339), as the attempt.",
}
"""Headers of copies for one group."""
WEAVR_HEADERS: Final[Mapping[str, str]] = {
    "signature-v2": "As received: base64(HMAC-SHA256(API key, `call-ref`, value, `published-timestamp`)).",
    "published-timestamp": "As received: when Weavr sent it, digits of epoch milliseconds.",
    "call-ref": "As received, where Weavr sent one.",
    "request-ref": "As received, where Weavr sent one: of bulk processes, in the place of `call-ref`.",
}
"""Headers that the record keeps for verifying the event again: names in lower case, bytes unchanged."""
_HEADERS: Final = {"pipeline": "CloudEventHeaders", "ecs": "CloudEventHeaders", "weavr": "WeavrHeaders"}
_OPAQUE: Final = "any-bytes"
_MADE: Final[tuple[tuple[str, str, str, str, str], ...]] = (
    (
        "webhook-events.source",
        f"{SOURCE_TOPICS}{{source}}",
        "source",
        "Name of a configured source",
        "Events of a source that is configured rather than built in, body as received",
    ),
    (
        "group.dead-letter",
        f"{{group}}{DEAD_LETTER_ENDING}",
        "group",
        "A subscriber's consumer group",
        "Records that the group gave up, value and headers unchanged, with dlq_* headers that say where from and why",
    ),
)
"""Topics from the configuration: name here, address, parameter, its meaning, contents of the topic."""


def document(examples: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document; payloads refer to the schema files beside it.

    Args:
        examples: An example of each contract, by its name.
    """
    published = [contract for contract in CONTRACTS if contract.topic]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Card pipeline",
            "version": _VERSION,
            "description": "Records are CloudEvents 1.0 in binary mode. The value of a sender's event is the body "
            "exactly as received. Addresses are logical: settings may put a prefix before them. Delivery is at least "
            "once: de-duplicate by ce_id (docs/reference/subscribers.md).",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            **{spec.topic: _channel(spec) for spec in TOPICS},
            **{name: _made(*rest) for name, *rest in _MADE},
        },
        "operations": {
            name: operation for spec in TOPICS for name, operation in _operations(spec.topic, _messages(spec.topic))
        }
        | {name: operation for made, *_ in _MADE for name, operation in _operations(made, [_OPAQUE])},
        "components": {
            "messages": {contract.name: _message(contract, examples[contract.name]) for contract in published}
            | {_OPAQUE: _opaque()},
            "schemas": {"CloudEventHeaders": _headers({}), "WeavrHeaders": _headers(WEAVR_HEADERS)},
        },
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    configuration = {"cleanup.policy": ["delete"], "retention.ms": spec.retention_ms}
    tags = [{"name": f"retention: {duration(spec.retention_ms)}"}]
    if spec.sensitive:
        tags.insert(0, {"name": "sensitive", "description": "Holds bearer secrets: give few the right to read it."})
    return {
        "address": spec.topic,
        "description": f"{spec.about}. Key: {spec.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(spec.topic)},
        "tags": tags,
        "bindings": {
            "kafka": {
                "topic": spec.topic,
                "partitions": spec.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": _BINDING,
            }
        },
    }


def _made(address: str, parameter: str, what: str, holds: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": f"{holds}.",
        "messages": {_OPAQUE: {"$ref": f"#/components/messages/{_OPAQUE}"}},
        "parameters": {parameter: {"description": f"{what}."}},
    }


def _operations(channel: str, messages: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the operations of a topic: the pipeline or a subscriber's library publishes; anybody may read."""
    refs = [{"$ref": f"#/channels/{_escaped(channel)}/messages/{name}"} for name in messages]
    about = {"channel": {"$ref": f"#/channels/{_escaped(channel)}"}, "messages": refs}
    return [
        (f"publish.{channel}", {"action": "send", "summary": "What the pipeline publishes.", **about}),
        (f"subscribe.{channel}", {"action": "receive", "summary": "What a subscriber reads.", **about}),
    ]


def _message(contract: Contract, example: Any) -> dict[str, Any]:
    assert contract.topic is not None  # noqa: S101 - only what topics carry has a message
    return {
        "name": contract.name,
        "title": contract.title,
        "summary": f"Version {contract.version}. {SPECS[contract.topic].about}.",
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{_HEADERS[contract.provider]}"},
        "payload": {"$ref": f"./{contract.schema}"},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": " or ".join(contract.keys)}, "bindingVersion": _BINDING}
        },
        "examples": [{"name": "synthetic", "payload": example}],
    }


def _opaque() -> dict[str, Any]:
    return {
        "name": _OPAQUE,
        "title": "AnyBytes",
        "summary": "A value as it was received, whatever it is: read it as bytes.",
        "contentType": "application/octet-stream",
        "payload": {"description": "Opaque bytes."},
    }


def _headers(provider: Mapping[str, str]) -> dict[str, Any]:
    known = {**HEADERS, **OPTIONAL_HEADERS, **AUDIT_HEADERS, **COPY_HEADERS, **provider}
    return {
        "type": "object",
        "required": [*HEADERS],
        "properties": {name: {"type": "string", "description": about} for name, about in known.items()},
    }


def _messages(topic: str) -> list[str]:
    return [contract.name for contract in CONTRACTS if contract.topic == topic] or [_OPAQUE]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
