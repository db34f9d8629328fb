"""Interprets an answer to a callback. Pure: status and bytes in, meaning out.

ECS documents a JSON:API answer, but gateways on the way answer HTML or nothing. So the status decides first, and the
media type is ignored. The body is not trusted: any text kept from it is masked and cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from pipeline.jobs.partners import UNANSWERED, UNCLEAR
from pipeline.jobs.wording import quote
from pipeline.observability import mask_text

RESULT_TYPE: Final = "batch-job-result"
RESULT_RECEIVED: Final = "RESULT_RECEIVED"

_ERRORS_SHOWN: Final = 3
_REQUEST_ID_LIMIT: Final = 128
_TEXT_LIMIT: Final = 4096


class Reaction(StrEnum):
    """What to do about an answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    RETRY = "retry"
    UNAUTHORIZED = "unauthorized"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of one answer.

    Attributes:
        code: Stable reason (docs/reference/errors.md).
        detail: The text of the answer, masked, on one line of at most 300 characters.
        request_id: ``meta.requestId`` or ``meta.request_id``; ECS's support asks for it.
        warning: Why an accepted answer is odd, or None.
    """

    reaction: Reaction
    code: str
    detail: str
    request_id: str | None = None
    warning: str | None = None


def interpret(status: int, body: bytes, *, job_guid: UUID) -> Meaning:
    """Return what one answer means.

    - 2xx: accepted if it confirms this job (``data.type``, ``data.id``, no ``errors``), with any ``status``. An
      answer with ``errors`` or about something else is refused: the same body would get it again. Without a JSON:API
      document (a maintenance page, an empty 204), the answer says nothing about the job: retry, ``callback_unclear``.
    - 401: unauthorized; the caller renews the token once. 403: retry, because it is about the token or the network too.
    - 408, 425, 429, 5xx: retry. 502 and 504 come from a gateway that got no answer, so they are
      ``callback_unanswered``: ECS may have received the callback.
    - 409: refused as ``callback_conflict``. After an unanswered try it means that ECS received that try: the
      stage decides.
    - 3xx: retry, because most redirects lead to a maintenance or login page. No redirect is followed: it would send the
      token and the body to another host.
    - Any other status (400, 404, 415, 422, ...): refused.

    Source: ECS's page "Card Batch Jobs", section "Expected Response Payload".
    """
    document = _document(body)
    detail = describe(body)
    partner_id = _request_id(document)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _confirmation(document, detail, partner_id, job_guid)
    reaction, code = _by_status(status)
    return Meaning(reaction, code, detail, partner_id)


_BY_STATUS: Final[Mapping[int, tuple[Reaction, str]]] = {
    HTTPStatus.UNAUTHORIZED: (Reaction.UNAUTHORIZED, "callback_unauthorized"),
    HTTPStatus.FORBIDDEN: (Reaction.RETRY, "callback_forbidden"),
    HTTPStatus.REQUEST_TIMEOUT: (Reaction.RETRY, "callback_try_later"),
    HTTPStatus.CONFLICT: (Reaction.REFUSED, "callback_conflict"),
    HTTPStatus.TOO_EARLY: (Reaction.RETRY, "callback_try_later"),
    HTTPStatus.TOO_MANY_REQUESTS: (Reaction.RETRY, "callback_try_later"),
    HTTPStatus.BAD_GATEWAY: (Reaction.RETRY, UNANSWERED),
    HTTPStatus.GATEWAY_TIMEOUT: (Reaction.RETRY, UNANSWERED),
}


def _by_status(status: int) -> tuple[Reaction, str]:
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Reaction.RETRY, "callback_server_error"
    if status < HTTPStatus.BAD_REQUEST:
        return Reaction.RETRY, "callback_redirected"
    return Reaction.REFUSED, "callback_refused"


def _confirmation(document: Mapping[str, Any], detail: str, partner_id: str | None, job_guid: UUID) -> Meaning:
    about_a_job = bool(document.get("errors")) or isinstance(document.get("data"), Mapping)
    problem = _not_confirmed(document, job_guid) if about_a_job else "no confirmation in the answer"
    if problem is not None:
        said = quote(f"{problem}: {detail}" if detail else problem)
        if about_a_job:
            return Meaning(Reaction.REFUSED, "callback_not_confirmed", said, partner_id)
        return Meaning(Reaction.RETRY, UNCLEAR, said, partner_id)
    status = _mapping(_mapping(document.get("data")).get("attributes")).get("status")
    warning = None if status == RESULT_RECEIVED else "unknown_status"
    return Meaning(Reaction.ACCEPTED, "callback_accepted", detail, partner_id, warning)


def _not_confirmed(document: Mapping[str, Any], job_guid: UUID) -> str | None:
    if document.get("errors"):
        return "a success status with errors"
    data = _mapping(document.get("data"))
    if data.get("type") != RESULT_TYPE:
        return f"data.type is not {RESULT_TYPE}"
    if _uuid(data.get("id")) != job_guid:
        return "data.id is not this job"
    return None


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(body))
    except (ValueError, RecursionError):  # not JSON, not text, or nested too deep
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _request_id(document: Mapping[str, Any]) -> str | None:
    meta = _mapping(document.get("meta"))
    for name in ("requestId", "request_id"):
        if isinstance(meta.get(name), str):
            return mask_text(meta[name][:_TEXT_LIMIT])[:_REQUEST_ID_LIMIT]
    return None


def describe(body: bytes) -> str:
    """Return the text of an answer, masked, on one line of at most 300 characters; empty for an empty body."""
    document = _document(body)
    if not document:
        return quote(body[:_TEXT_LIMIT].decode("utf-8", "replace"))
    errors = document.get("errors")
    if isinstance(errors, list) and errors:
        return quote("; ".join(_error(_mapping(error)) for error in errors[:_ERRORS_SHOWN]))
    attributes = _mapping(_mapping(document.get("data")).get("attributes"))
    return quote(": ".join(_words(attributes, "status", "message")))


def _error(error: Mapping[str, Any]) -> str:
    # JSON:API says that status is a string; ECS writes numbers as well
    return ": ".join(_words(error, "status", "code", "title", "detail"))


def _words(found: Mapping[str, Any], *names: str) -> list[str]:
    values = (found.get(name) for name in names)
    return [
        str(value)[:_TEXT_LIMIT]
        for value in values
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    ]
