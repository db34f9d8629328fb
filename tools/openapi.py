"""``schemas/openapi.json``: requests and answers of the ingress, as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.contracts import Topic
from pipeline.webhooks.answers import STATUSES, Status
from tools.contract_table import CONTRACTS, Contract
from tools.wire_schema import DIALECT, Schema

_VERSION: Final = "1.0.0"
_SUCCESS: Final = 300
_INVALID: Final = "422"
_ANSWERED: Final[Mapping[str, tuple[str, str]]] = {
    "401": ("WWW-Authenticate", "Webhook"),
    "405": ("Allow", "POST"),
    "503": ("Retry-After", "Seconds after which to try again."),
}
"""Headers of answers by status, with their meaning."""
_NAME: Final = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}

_FINDING: Final[Mapping[str, Schema]] = {
    "field": {"type": "string", "description": "Dotted name of the part of the request that it is about."},
    "rule": {"type": "string", "description": "Stable name of the rule that was broken (docs/reference/statuses.md)."},
    "remedy": {"type": "string", "description": "What to send instead."},
}
PROBLEM: Final[Schema] = {
    "$schema": DIALECT,
    "$id": "urn:card-pipeline:schema:problem:v1",
    "title": "Problem",
    "description": "Why a request was refused (RFC 9457). Field, rule and remedy are those of the first finding; "
    "`errors` lists all, where there are more.",
    "type": "object",
    "properties": {
        "type": {
            "type": "string",
            "description": "Names a row of docs/reference/statuses.md: urn:card-pipeline:problem:ROW.",
        },
        "title": {"type": "string", "description": "The row in a few words; the same for each refusal of this type."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What led to this refusal."},
        **_FINDING,
        "errors": {
            "type": "array",
            "items": {"$ref": "#/$defs/Finding"},
            "description": "Field, rule and remedy of each broken rule of a body that breaks several.",
        },
        "trace_id": {"type": "string", "description": "Names the request in the receiver's logs."},
    },
    "required": ["type", "title", "status", "detail", "rule"],
    "$defs": {"Finding": {"title": "Finding", "type": "object", "properties": {**_FINDING}, "required": ["rule"]}},
}
"""The schema of every refusal."""

_Headers = tuple[tuple[str, str, Schema], ...]
_DIGITS: Final = {"pattern": "^[0-9]+$"}
_WEAVR_HEADERS: Final[_Headers] = (
    ("published-timestamp", "When Weavr sent it: digits of epoch milliseconds. The signature covers it.", _DIGITS),
    ("call-ref", "Weavr's reference of the call. The signature covers it.", {"maxLength": 255}),
)
_BULK_HEADERS: Final[_Headers] = (
    ("published-timestamp", "When Weavr sent it: digits of epoch milliseconds.", _DIGITS),
    ("request-ref", "Weavr's reference of the request.", {}),
)
_DESCRIPTION: Final = """\
Webhooks of eCard Systems, of Weavr, and of sources that are configured. A 2xx means that every in-sync Kafka replica \
has the event. Which success status is answered is configured; Weavr is answered 204. A secret segment of a path \
follows the integration's name; it is not shown here."""


def document() -> dict[str, Any]:
    """Return the document; bodies refer to the schema files beside it."""
    weavr = [contract for contract in CONTRACTS if contract.provider == "weavr"]
    (ecs,) = [contract for contract in CONTRACTS if contract.topic == Topic.BATCH_REQUESTED]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Card pipeline: ingress",
            "version": _VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "https://webhooks.example"}],
        "tags": [
            {"name": "ecs", "description": "eCard Systems: card batch jobs."},
            {"name": "weavr", "description": "Weavr: events on cards, accounts, transfers, identities."},
            {"name": "configured", "description": "Sources that need configuration only."},
        ],
        "paths": {
            "/webhooks/ecs/{integration}": {"post": _ecs(ecs)},
            **{f"/webhooks/weavr/{{integration}}{contract.path}": {"post": _weavr(contract)} for contract in weavr},
            "/webhooks/sources/{source}": {"post": _configured()},
        },
        "components": {
            "parameters": {
                "integration": _parameter("integration", "path", "Name of the integration.", _NAME),
                "source": _parameter("source", "path", "Name of the configured source.", _NAME),
            },
            "responses": {name: _response(rows) for name, rows in _by_status().items()},
            "securitySchemes": {
                "sharedSecret": _header_key("X-Webhook-Secret", "The header's name is configured."),
                "signature": _header_key(
                    "X-Signature", "HMAC over the raw body; header, hash, encoding and what is signed are configured."
                ),
                "weavrSignature": _header_key(
                    "signature-v2",
                    "base64(HMAC-SHA256(API key, call-ref, raw body, published-timestamp)), as one text.",
                ),
                "standardWebhooks": _header_key("webhook-signature", "Standard Webhooks: v1 (HMAC) or v1a (Ed25519)."),
            },
        },
    }


def _ecs(contract: Contract) -> dict[str, Any]:
    body = {"$ref": f"./{contract.schema}"}
    return _operation("ecs", "announce_card_batch", "Announce a card batch job", body, ["sharedSecret", "signature"])


def _weavr(contract: Contract) -> dict[str, Any]:
    name = contract.name.removeprefix("weavr.").replace(".", "_")
    unsigned = contract.path == "/bulk_process_end/watch"
    body = {"$ref": f"./{contract.schema}"}
    operation = _operation("weavr", f"weavr_{name}", contract.name, body, [] if unsigned else ["weavrSignature"])
    operation["parameters"] += [
        _parameter(header, "header", about, {"type": "string", **rule}, required=header == "published-timestamp")
        for header, about, rule in (_BULK_HEADERS if unsigned else _WEAVR_HEADERS)
    ]
    if unsigned:
        operation["description"] = (
            "Weavr declares no signature for it: refused, unless the configuration says what protects it instead "
            "(a secret segment of the path, addresses of the sender)."
        )
    return operation


def _configured() -> dict[str, Any]:
    schemes = ["standardWebhooks", "signature"]
    operation = _operation("configured", "send_configured", "Send an event of a configured source", {}, schemes)
    operation["parameters"] = [{"$ref": "#/components/parameters/source"}]
    operation["requestBody"]["content"] = {"*/*": {}}
    operation["description"] = "Any body; where the event's id, type and key stand is configured."
    return operation


def _operation(tag: str, ident: str, summary: str, body: Schema, schemes: Sequence[str]) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": ident,
        "summary": summary,
        "parameters": [{"$ref": "#/components/parameters/integration"}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            code: {"$ref": f"#/components/responses/{code}"}
            for code in _by_status()
            if code != _INVALID or tag == "ecs"  # other sources keep an invalid body and answer with success
        },
        "security": [{scheme: []} for scheme in schemes] or [{}],
    }


def _by_status() -> dict[str, list[Status]]:
    found: dict[str, list[Status]] = {}
    for row in STATUSES:
        for code in row.codes:
            found.setdefault(str(code), []).append(row)
    return found


def _response(rows: Sequence[Status]) -> dict[str, Any]:
    description = "\n\n".join(f"`{row.answer}`: {row.meaning} {row.cause}" for row in rows)
    if rows[0].codes[0] < _SUCCESS:
        return {"description": description}
    code = str(rows[0].codes[0])
    name, about = _ANSWERED.get(code, ("", ""))
    return {
        "description": description,
        **({"headers": {name: {"description": about, "schema": {"type": "string"}}}} if name else {}),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "./problem.v1.json"},
                "examples": {row.answer: {"value": _problem(row)} for row in rows},
            }
        },
    }


def _problem(row: Status) -> dict[str, Any]:
    named = {"field": row.field, "rule": row.answer, "remedy": row.remedy}
    return {
        "type": row.problem_type,
        "title": row.title,
        "status": row.codes[0],
        "detail": row.cause,
        **{name: text for name, text in named.items() if text},
    }


def _parameter(name: str, location: str, about: str, schema: Schema, *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": location, "required": required, "description": about, "schema": schema}


def _header_key(name: str, about: str) -> dict[str, Any]:
    return {"type": "apiKey", "in": "header", "name": name, "description": about}
