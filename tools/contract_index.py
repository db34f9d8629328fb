"""``schemas/index.json``: path, topic, key, schema and example of each event type, and all topics."""

from __future__ import annotations

from typing import Any

from pipeline.contracts import TOPICS, TopicSpec
from pipeline.contracts.sensitive import SENSITIVE_MARK
from tools.contract_table import CONTRACTS, Contract
from tools.wire_schema import Schema, fields


def index(schemas: dict[str, Schema]) -> dict[str, Any]:
    """Return the index.

    Args:
        schemas: Each contract's schema, by the contract's name.
    """
    return {
        "about": "Paths are relative to this file. Topics are logical: settings may put a prefix before them.",
        "events": {kind: _event(contract, schemas[contract.name]) for contract in CONTRACTS for kind in contract.types},
        "bodies": {
            contract.name: {"schema": contract.schema, "example": contract.example, "version": contract.version}
            for contract in CONTRACTS
            if contract.topic is None
        },
        "topics": {str(spec.topic): _topic(spec) for spec in TOPICS},
    }


def _event(contract: Contract, schema: Schema) -> dict[str, Any]:
    return {
        "provider": contract.provider,
        **({"path": contract.path} if contract.path else {}),
        "topic": contract.topic,
        "key": [*contract.keys],
        "version": contract.version,
        "dataschema": contract.ident,
        "schema": contract.schema,
        "example": contract.example,
        "sensitive": contract.sensitive,
        "sensitive_fields": [name for name, field, _ in fields(schema) if field.get(SENSITIVE_MARK)],
    }


def _topic(spec: TopicSpec) -> dict[str, Any]:
    types = [kind for contract in CONTRACTS if contract.topic == spec.topic for kind in contract.types]
    return {
        "partitions": spec.partitions,
        "retention_ms": spec.retention_ms,
        "sensitive": spec.sensitive,
        "key": spec.key,
        "value": "json" if types else "bytes",
        "types": types,
        "dead_letter": spec.dead_letter,
    }
