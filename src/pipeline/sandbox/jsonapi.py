"""ECS's JSON:API documents, as its batch page describes them, and the wrong ones for faults."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import web

from pipeline.sandbox.faults import Fault

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
    """Return a time in ECS's format: UTC, milliseconds, Z."""
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


_OTHER_JOB = UUID("00000000-0000-4000-8000-000000000000")


def wrong_answer(fault: Fault, guid: str, *, at: datetime) -> web.Response:
    """Return the 200 answer for a fault."""
    attributes = {"status": "RESULT_RECEIVED", "message": "Result upload confirmed"}
    match fault.answer:
        case "html":
            answer = web.Response(text="<html><body><h1>OK</h1></body></html>", content_type="text/html")
        case "empty":
            answer = web.Response(status=200)
        case "not_json":
            answer = web.Response(body=b'{"data": ', content_type="application/json")
        case "errors":
            answer = respond(error_document(fault.error_status, "the reporting database is unavailable", at=at))
        case "other_job":
            answer = respond(data_document("batch-job-result", str(_OTHER_JOB), attributes, at=at))
        case "other_type":
            answer = respond(data_document("batch-job", guid, attributes, at=at))
        case _:
            attributes["status"] = "QUEUED_FOR_REVIEW"
            answer = respond(data_document("batch-job-result", guid, attributes, at=at))
    return answer
