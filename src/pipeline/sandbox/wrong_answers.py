"""Answers to a callback that look like success and are none, or are success in an odd form."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web

from pipeline.sandbox.faults import Fault
from pipeline.sandbox.jsonapi import data_document, error_document, respond

_OTHER_JOB = UUID("00000000-0000-4000-8000-000000000000")


def wrong_answer(fault: Fault, guid: str, *, at: datetime) -> web.Response:
    """Return the 200 that the fault asks for."""
    attributes = {"status": "RESULT_RECEIVED", "message": "Result upload confirmed"}
    match fault.answer:
        case "html":
            answer = web.Response(text="<html><body><h1>OK</h1></body></html>", content_type="text/html")
        case "empty":
            answer = web.Response(status=200)
        case "not_json":
            answer = web.Response(body=b'{"data": ', content_type="application/json")
        case "errors":
            answer = respond(error_document(fault.error_status, "the reporting database is away", at=at))
        case "other_job":
            answer = respond(data_document("batch-job-result", str(_OTHER_JOB), attributes, at=at))
        case "other_type":
            answer = respond(data_document("batch-job", guid, attributes, at=at))
        case _:
            attributes["status"] = "QUEUED_FOR_REVIEW"
            answer = respond(data_document("batch-job-result", guid, attributes, at=at))
    return answer
