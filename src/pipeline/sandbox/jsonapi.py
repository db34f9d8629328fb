"""ECS's JSON:API documents, as in its batch page."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from aiohttp import web

MEDIA_TYPE: Final = "application/vnd.api+json"

_TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    401: "Unauthorized",
    404: "Job not found",
    409: "Conflict",
    415: "Unsupported media type",
    422: "Unprocessable entity",
    429: "Too many requests",
    500: "Internal server error",
    503: "Service unavailable",
}


def iso(moment: datetime) -> str:
    """Return a time as ECS writes it: UTC, milliseconds, Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def data_document(kind: str, identifier: str, attributes: Mapping[str, object], *, at: datetime) -> dict[str, object]:
    """Return a success document."""
    return {
        "data": {"type": kind, "id": identifier, "attributes": dict(attributes)},
        "meta": {"timestamp": iso(at), "requestId": f"req-{secrets.token_hex(6)}", "version": "1.0.0"},
        "jsonapi": {"version": "1.0"},
    }


def error_document(status: int | str, detail: str, *, at: datetime) -> dict[str, object]:
    """Return an error document; ECS writes the status as a string, others as a number."""
    title = _TITLES.get(int(status), "Error")
    return {
        "errors": [{"status": status, "title": title, "detail": detail}],
        "meta": {"timestamp": iso(at), "requestId": f"req-{secrets.token_hex(6)}"},
        "jsonapi": {"version": "1.0"},
    }


def respond(
    document: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a document as an answer."""
    return web.Response(
        status=status, body=json.dumps(document).encode(), headers={"Content-Type": MEDIA_TYPE, **(headers or {})}
    )
