"""The table of all answers of the ingress, and refusals as RFC 9457 problem documents.

docs/reference/statuses.md is rendered from the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiohttp import web

from pipeline.contracts.strict_json import Finding


class Answer(StrEnum):
    """Every kind of answer. The value is the ``rule`` of a refusal, and part of the problem document's ``type``."""

    ACCEPTED = "accepted"
    KEPT = "kept"
    URL_CHECKED = "url_checked"
    MALFORMED = "malformed"
    BODY_INCOMPLETE = "body_incomplete"
    UNAUTHENTICATED = "unauthenticated"
    UNKNOWN_PATH = "unknown_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    BODY_TOO_LARGE = "body_too_large"
    RECORD_TOO_LARGE = "record_too_large"
    CONTENT_TYPE = "content_type"
    CONTENT_ENCODING = "content_encoding"
    INVALID = "invalid"
    UNEXPECTED = "unexpected"
    OVERLOADED = "overloaded"
    SOURCE_OVERLOADED = "source_overloaded"
    BROKER_UNAVAILABLE = "broker_unavailable"
    NO_ACTIVE_SECRET = "no_active_secret"  # noqa: S105 - a kind of answer, no secret
    UNVERIFIED = "unverified"
    UNSIGNED_PATH = "unsigned_path"


@dataclass(frozen=True, slots=True)
class Status:
    """One row of the table.

    Attributes:
        codes: HTTP statuses; several if the integration's settings decide.
        title: The problem document's title.
        meaning: What this answer guarantees.
        cause: The cause of the answer.
        remedy: What the sender should do; the problem document contains it.
        field: The part of the request that causes it; empty for none.
        retry: Whether the same request may succeed later. If so, the answer is a 5xx or a 408; if not, it is neither.
    """

    answer: Answer
    codes: tuple[int, ...]
    title: str
    meaning: str
    cause: str
    remedy: str
    field: str = ""
    retry: bool = False

    @property
    def problem_type(self) -> str:
        """The ``type`` of its problem document: an absolute URI that identifies this row. No document exists there."""
        return f"urn:card-pipeline:problem:{self.anchor}"

    @property
    def anchor(self) -> str:
        """The row's anchor in docs/reference/statuses.md."""
        return self.answer.value.replace("_", "-")


_NOTHING: Final = "Nothing was kept."

STATUSES: Final[tuple[Status, ...]] = (
    Status(
        Answer.ACCEPTED,
        (200, 202, 204),
        "Accepted",
        "The event is on every in-sync replica; so is its audit entry, unless the source is configured to have none. "
        "The source decides which of the three it is.",
        "The request is authentic and valid.",
        "Nothing. Sending it again is harmless: the same body is the same event.",
    ),
    Status(
        Answer.KEPT,
        (200, 202, 204),
        "Kept for the receiver",
        "The body is on every in-sync replica of the quarantine topic; the receiver is alarmed and can release it.",
        "The request is authentic, but of an unknown kind or not understood, and its source is configured to lose "
        "nothing (Weavr, configured sources).",
        "Nothing. Sending it again is harmless.",
    ),
    Status(
        Answer.URL_CHECKED,
        (200,),
        "URL check answered",
        "Nothing was kept: the request is no event.",
        "The sender checks the webhook's URL before it uses it, in a way that url_checks of its source names.",
        "Nothing. The answer is what the sender wants.",
    ),
    Status(
        Answer.MALFORMED,
        (400,),
        "Malformed request",
        _NOTHING,
        "The bytes are not an HTTP/1.1 or HTTP/1.0 request, or a header is too long, or repeated although it must be "
        "unique, or Transfer-Encoding names another coding than chunked.",
        "Send a well-formed HTTP/1.1 request with at most 128 headers of at most 8,190 bytes, 64 KiB together, and "
        "with Content-Length or Transfer-Encoding: chunked",
    ),
    Status(
        Answer.BODY_INCOMPLETE,
        (400,),
        "Incomplete body",
        _NOTHING,
        "The connection ended before the announced length had come, or the chunked encoding is broken, or most of "
        "its many chunks have one or two bytes.",
        "Send as many bytes as Content-Length announces, or well-formed chunks",
        "body",
    ),
    Status(
        Answer.UNAUTHENTICATED,
        (401,),
        "Not authenticated",
        f"{_NOTHING} The answer is the same whatever was wrong; metric and log of the receiver have the reason.",
        "The secret or signature is missing, wrong, repeated, expired, or its timestamp is too far from our clock.",
        "Send the secret or signature as agreed for this webhook; if it worked before, compare secrets and clocks",
        "signature",
    ),
    Status(
        Answer.UNKNOWN_PATH,
        (404,),
        "No such webhook",
        _NOTHING,
        "No integration is configured under this path.",
        "Compare the path with the webhook URL that you were given, letter by letter",
        "path",
    ),
    Status(
        Answer.METHOD_NOT_ALLOWED,
        (405,),
        "Method not allowed",
        f"{_NOTHING} Allow says what is allowed.",
        "A webhook is sent with POST; other methods only check the URL, if the source's url_checks allow it.",
        "Use POST",
        "method",
    ),
    Status(
        Answer.BODY_TIMEOUT,
        (408,),
        "Body too slow",
        _NOTHING,
        "The body did not come within ingress.read_timeout_seconds; or, where a 400 would lose the event (Weavr, "
        "configured sources), the connection ended before all of it had come.",
        "Send it again, without pauses between its parts",
        "body",
        retry=True,
    ),
    Status(
        Answer.BODY_TOO_LARGE,
        (413,),
        "Body too large",
        _NOTHING,
        "The body is larger than ingress.max_body_bytes, as it came or after it was expanded.",
        "Send a smaller body, or ask the receiver for a higher limit",
        "body",
    ),
    Status(
        Answer.RECORD_TOO_LARGE,
        (413,),
        "Record too large",
        f"{_NOTHING} It was found before anything was sent to the broker.",
        "Body and headers together exceed the largest record that the broker takes.",
        "Send a smaller body, or ask the receiver for a higher limit",
        "body",
    ),
    Status(
        Answer.CONTENT_TYPE,
        (415,),
        "Unsupported media type",
        _NOTHING,
        "Content-Type is missing, repeated, or not application/json in UTF-8. Weavr and configured sources are not "
        "asked: a refusal would lose the event.",
        "Send Content-Type: application/json",
        "Content-Type",
    ),
    Status(
        Answer.CONTENT_ENCODING,
        (415,),
        "Unsupported content encoding",
        _NOTHING,
        "The body is compressed, and the webhook announces jobs. Weavr and configured sources take gzip and deflate, "
        "and keep other encodings in quarantine.",
        "Send the body without Content-Encoding",
        "Content-Encoding",
    ),
    Status(
        Answer.INVALID,
        (422,),
        "Invalid announcement",
        "The body is on every in-sync replica of the quarantine topic; the receiver can release it after a fix.",
        "The request is authentic, but its body breaks a rule; the document names each field, rule and remedy.",
        "Correct what the document names, and send it again",
        "body",
    ),
    Status(
        Answer.UNEXPECTED,
        (500,),
        "Internal error",
        "Nothing is known to be kept.",
        "A fault of the receiver that nobody foresaw.",
        "Send it again later; tell the receiver the trace_id if it stays so",
        retry=True,
    ),
    Status(
        Answer.OVERLOADED,
        (503,),
        "Overloaded",
        f"{_NOTHING} Retry-After says when to try again.",
        "ingress.max_in_flight requests, ingress.max_in_flight_bytes bytes of bodies, or the allowed number of sends "
        "to the broker, are in work.",
        "Send it again after Retry-After",
        retry=True,
    ),
    Status(
        Answer.SOURCE_OVERLOADED,
        (503,),
        "Too many requests from this source",
        f"{_NOTHING} Other sources are served. Retry-After says when to try again.",
        "This source, or unknown clients on its path, have as many requests or bytes in work as one may have while "
        "others need room; or its body came so slowly that it gave way to another request; or it sends more than "
        "source_requests_per_second.",
        "Send it again after Retry-After, fewer at the same time, and each body without pauses",
        retry=True,
    ),
    Status(
        Answer.BROKER_UNAVAILABLE,
        (503,),
        "Not durable in time",
        "Not known to be kept; it may be kept nevertheless, and its repeat is then the same event. "
        "Retry-After says when to try again.",
        "The broker did not confirm within ingress.deadline_seconds, or cannot be reached.",
        "Send it again after Retry-After",
        retry=True,
    ),
    Status(
        Answer.NO_ACTIVE_SECRET,
        (503,),
        "Verification not possible",
        f"{_NOTHING} It is a fault of the receiver, who is alarmed.",
        "None of the secrets configured for this webhook is valid today.",
        "Send it again after Retry-After",
        retry=True,
    ),
    Status(
        Answer.UNVERIFIED,
        (503,),
        "Not verified",
        f"{_NOTHING} The receiver is alarmed: maybe its keys are out of date.",
        "The request is well-formed and fresh, but none of the secrets configured for this source verifies it, and "
        "the source is configured to have it sent again (unverified_status = 503).",
        "Send it again after Retry-After; if it worked before, compare secrets",
        retry=True,
    ),
    Status(
        Answer.UNSIGNED_PATH,
        (503,),
        "Unsigned path",
        f"{_NOTHING} The receiver is alarmed: its configuration does not say what protects this path.",
        "The path's events have no signature, and unsigned_paths does not name it.",
        "Send it again after Retry-After",
        retry=True,
    ),
)
"""In the order of the HTTP status."""

STATUS: Final[dict[Answer, Status]] = {row.answer: row for row in STATUSES}

_CONTENT_TYPE: Final = "application/problem+json"
_RETRY_AFTER_SECONDS: Final = 5
"""Seconds for ``Retry-After``. Most outages that cause a 503 are this short."""


class Problem(Exception):
    """A refusal of a request. Raise it to end the handling; the outermost frame renders it.

    Attributes:
        row: The row of the table.
        reason: Reason for metric and log, from a closed set.
        findings: The broken rules of an authentic body.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        reason: str | None = None,
        detail: str | None = None,
        findings: Sequence[Finding] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the row of the table, and details of this refusal.

        Args:
            answer: Selects the row.
            reason: Reason for metric and log; default: the answer itself.
            detail: Text instead of the row's cause, free of received data.
            findings: The broken rules of an authentic body.
            headers: E.g. ``Retry-After``.
        """
        super().__init__(answer.value)
        self.row: Final[Status] = STATUS[answer]
        self.reason: Final = reason or answer.value
        self.findings: Final = tuple(findings)
        self.headers: Final = dict(headers or {})
        self._detail: Final = detail or self.row.cause

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.row.codes[0]

    def document(self, trace_id: str | None = None) -> dict[str, Any]:
        """Return the members of the problem document, standard ones first.

        ``field``, ``rule`` and ``remedy`` describe the first finding; ``errors`` lists all if there are several.
        """
        members: dict[str, Any] = {
            "type": self.row.problem_type,
            "title": self.row.title,
            "status": self.status,
            "detail": self._detail,
        }
        first, *more = self.findings or [Finding(self.row.field, self.row.answer.value, self.row.remedy)]
        members |= _named(first)
        if more:
            members["errors"] = [_named(finding) for finding in (first, *more)]
        if trace_id:
            members["trace_id"] = trace_id
        return members

    def response(self, trace_id: str | None = None) -> web.Response:
        """Return the answer."""
        return web.Response(
            status=self.status,
            body=json.dumps(self.document(trace_id)).encode(),
            content_type=_CONTENT_TYPE,
            headers=self.headers,
        )


def temporary(answer: Answer, reason: str, retry_after: float | None = None) -> Problem:
    """Return a 503 with ``Retry-After``: a few seconds, or the pause in seconds that the broker requests."""
    seconds = max(1, round(retry_after)) if retry_after else _RETRY_AFTER_SECONDS
    return Problem(answer, reason=reason, headers={"Retry-After": str(seconds)})


def _named(finding: Finding) -> dict[str, str]:
    members = {"field": finding.field, "rule": finding.rule, "remedy": finding.remedy}
    return {name: text for name, text in members.items() if text}
