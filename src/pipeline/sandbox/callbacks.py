"""ECS's side of a callback: checks sender, job and body, and recognises repeats."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pipeline.sandbox.cards import FIRST_SIX_DIGITS
from pipeline.sandbox.jobs import Job
from pipeline.sandbox.jsonapi import data_document, error_document, iso
from pipeline.sandbox.tokens import TokenRefused, Tokens

MAX_MESSAGE: Final = 1200
_KNOWN: Final = ("success", "records_processed", "records_failed", "error_message")
_LONG_NUMBER: Final = re.compile(r"\d(?:[ -]?\d){11,18}")
_SIX_DIGITS: Final = re.compile(r"(?<!\d)\d{6}(?!\d)")
_URL: Final = re.compile(r"https?://|X-Amz-[A-Za-z0-9-]*=", re.IGNORECASE)
"""A URL, or a parameter of a signed URL with its value. The name of a parameter alone is allowed in a message."""


class BodyRefused(Exception):
    """The body breaks the contract.

    Attributes:
        status: 400 if it is not JSON, otherwise 422.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Take status and reason separately."""
        super().__init__(reason)
        self.status = status


def read_body(body: bytes) -> dict[str, object]:
    """Return the parsed body.

    Raises:
        BodyRefused: The body is not a JSON object, a field is missing or has a wrong type, the message is too long, or
            the message contains a URL or a card number.
    """
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except ValueError as error:
        raise BodyRefused(400, "the body is not JSON") from error
    if not isinstance(document, dict):
        raise BodyRefused(422, "the body is not a JSON object")
    success = document.get("success")
    if not isinstance(success, bool):
        raise BodyRefused(422, "success must be true or false")
    _check_count(document, "records_processed", optional=False)
    _check_count(document, "records_failed", optional=not success)
    _check_message(document.get("error_message"), success=success)
    return document


def unknown_fields(document: dict[str, object]) -> list[str]:
    """Return the undocumented fields. ECS accepts them, and the control API shows them."""
    return sorted(set(document) - set(_KNOWN))


def names_six_digit_card(message: str, first: int, records: int) -> bool:
    """Return whether a text contains the number of a card of a six-digit file."""
    return any(first <= int(number) < first + records for number in _SIX_DIGITS.findall(message))


def _check_count(document: dict[str, object], name: str, *, optional: bool) -> None:
    if optional and document.get(name) is None:
        return
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BodyRefused(422, f"{name} must be an integer of at least 0")


def _check_message(message: object, *, success: bool) -> None:
    if message is None and success:
        return
    if not isinstance(message, str) or (not success and not message.strip()):
        raise BodyRefused(422, "error_message must be a text that says what went wrong, or null on success")
    if len(message) > MAX_MESSAGE:
        raise BodyRefused(422, f"error_message has {len(message)} characters; {MAX_MESSAGE} are allowed")
    if _URL.search(message):
        raise BodyRefused(422, "error_message holds a URL")
    if _LONG_NUMBER.search(message):
        raise BodyRefused(422, "error_message holds what looks like a card number")


def _no_constant(name: str) -> object:
    raise ValueError(name)


IDEMPOTENCY: Final = timedelta(hours=2)
"""How long ECS remembers an X-Request-Id."""

_REMEMBERED: Final = 100_000
_RECORDED: Final = 20_000
_MEDIA_TYPES: Final = frozenset({"application/json", "application/vnd.api+json"})


@dataclass(frozen=True, slots=True)
class CallbackDecision:
    """ECS's decision, before a fault changes the answer.

    Attributes:
        success: The outcome in an accepted callback; None for a refused one.
        replayed: Whether it repeats the first answer to this X-Request-Id.
    """

    status: int
    document: Mapping[str, object]
    reason: str
    success: bool | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class CallbackRecord:
    """One received callback.

    Attributes:
        headers: Without the bearer token.
        decided: Status that ECS decided; 0 if a fault answered instead.
        answered: Status that was sent; 0 if the connection was dropped.
        reason: The reason, for a person.
        unknown: Undocumented fields in the body.
    """

    at: datetime
    job_guid: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    request_id: str | None
    decided: int
    answered: int
    reason: str
    replayed: bool = False
    unknown: tuple[str, ...] = ()

    def view(self) -> dict[str, object]:
        """Return it for the control API."""
        return {
            "at": iso(self.at),
            "job_guid": self.job_guid,
            "body": self.body.decode("utf-8", "replace"),
            "headers": dict(self.headers),
            "request_id": self.request_id,
            "decided": self.decided,
            "answered": self.answered,
            "reason": self.reason,
            "replayed": self.replayed,
            "unknown": list(self.unknown),
        }


@dataclass(frozen=True, slots=True)
class _Said:
    payload: bytes
    at: datetime
    decision: CallbackDecision


class CallbackDesk:
    """Decides callbacks and keeps a record of each.

    Attributes:
        records: The last callbacks, oldest first.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        job: Callable[[str], Job | None],
        uploaded: Callable[[Job], bool],
        conflict_status: int,
        clock: Callable[[], datetime],
    ) -> None:
        self.records: deque[CallbackRecord] = deque(maxlen=_RECORDED)
        self._tokens = tokens
        self._job = job
        self._uploaded = uploaded
        self._conflict_status = conflict_status
        self._clock = clock
        self._said: OrderedDict[tuple[UUID, str], _Said] = OrderedDict()

    def decide(self, guid: str, body: bytes, headers: Mapping[str, str]) -> CallbackDecision:
        """Decide about a callback. If it is accepted, it settles the job.

        ``guid`` is the GUID in the URL. ``headers`` has the values by lower-case name.
        """
        try:
            partner = self._tokens.partner(headers.get("authorization"))
        except TokenRefused as error:
            return self._error(401, str(error))
        if headers.get("content-type", "").partition(";")[0].strip().lower() not in _MEDIA_TYPES:
            return self._error(415, "Content-Type must be application/json")
        request_id = headers.get("x-request-id")
        if request_id is None:
            return self._decide(guid, partner, body)
        payload = hashlib.sha256(guid.encode() + b"\0" + body).digest()
        said = self._recall(partner, request_id)
        if said is not None and said.payload != payload:
            return self._error(self._conflict_status, "this X-Request-Id was used with another payload")
        if said is not None:
            self._settle_again(guid, said.decision)
            return replace(said.decision, replayed=True)
        decision = self._decide(guid, partner, body)
        self._said[partner, request_id] = _Said(payload, self._clock(), decision)
        return decision

    def record(
        self, guid: str, body: bytes, headers: Mapping[str, str], *, decision: CallbackDecision, answered: int
    ) -> None:
        """Keep the request and the answer."""
        kept = {name: value for name, value in headers.items() if name != "authorization"}
        try:
            unknown = tuple(unknown_fields(read_body(body)))
        except BodyRefused:
            unknown = ()
        self.records.append(
            CallbackRecord(
                at=self._clock(),
                job_guid=guid,
                body=body,
                headers=kept,
                request_id=headers.get("x-request-id"),
                decided=decision.status,
                answered=answered,
                reason=decision.reason,
                replayed=decision.replayed,
                unknown=unknown,
            )
        )

    def of_job(self, guid: UUID) -> list[CallbackRecord]:
        """Return the recorded callbacks of one job, oldest first."""
        return [record for record in self.records if record.job_guid == str(guid)]

    def _decide(self, guid: str, partner: UUID, body: bytes) -> CallbackDecision:
        job = self._job(guid)
        if job is None or job.partner_guid != partner:  # another partner's job does not exist
            return self._error(404, f"No batch job found with GUID {guid}")
        try:
            document = read_body(body)
        except BodyRefused as error:
            return self._error(error.status, str(error))
        success = document["success"] is True
        if job.request.cards.six_digits and names_six_digit_card(
            str(document.get("error_message") or ""), FIRST_SIX_DIGITS, job.record_count
        ):
            return self._error(422, "error_message holds a card number of this batch")
        if job.success is not None:
            return self._error(409, "this job's result was confirmed before")
        if success and not self._uploaded(job):
            return self._error(409, "no result file was uploaded")
        job.settle(success=success)
        return self._accepted(guid, success=success)

    def _settle_again(self, guid: str, decision: CallbackDecision) -> None:
        """Settle a job that was announced again after a failure, if its callback repeats the same request id."""
        job = self._job(guid)
        if job is not None and job.success is None and decision.success is not None:
            job.settle(success=decision.success)

    def _accepted(self, guid: str, *, success: bool) -> CallbackDecision:
        now = self._clock()
        attributes = {
            "status": "RESULT_RECEIVED",
            "message": "Result upload confirmed" if success else "Failure recorded",
            "received_at": iso(now),
        }
        return CallbackDecision(200, data_document("batch-job-result", guid, attributes, at=now), "accepted", success)

    def _error(self, status: int, reason: str) -> CallbackDecision:
        return CallbackDecision(status, error_document(str(status), reason, at=self._clock()), reason)

    def _recall(self, partner: UUID, request_id: str) -> _Said | None:
        now = self._clock()
        while self._said and (len(self._said) > _REMEMBERED or now - next(iter(self._said.values())).at >= IDEMPOTENCY):
            self._said.popitem(last=False)
        return self._said.get((partner, request_id))
