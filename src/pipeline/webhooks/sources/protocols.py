"""The parts of a source of webhooks: how a request is verified, which event it is, how it is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol, Self, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, JsonValue

from pipeline.contracts import Headers, TopicName
from pipeline.contracts.bodies import LARGEST_BODY, UnreadableBody, encoding_of, json_of, plain_body
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.http_request import content_type_of
from pipeline.webhooks.verification import Reason, Scheme, Secret, SignatureRefused

SuccessStatus = Literal[200, 202, 204]
"""The status that a sender takes for success, as its source is configured."""

SignedBody = Literal["as-sent", "plain"]
"""Which bytes of an encoded body a sender signs: those that it sends, or those without the encoding."""

UnverifiedStatus = Literal[401, 503]
"""Answer to a well-formed, fresh request that no secret verifies: 401 ends it, 503 makes the sender repeat it."""

UNKNOWN_PATH: Final = "unknown_path"
"""Rule of a request whose path names no known kind of event; its sender may have added a kind."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One request, as far as it says which event it is.

    Attributes:
        path: Path below the webhook's own, such as ``/managed_cards/watch``; empty where there is none.
        headers: Names in lower case, values as received, repetitions included. A verifier gets all of them; a source
            only those that its verifier stores with the record, so that it finds the same again in the record.
        body: The raw bytes.
        client: Address of the sender, behind trusted proxies; ``-`` if it is not known.
        content_type: As received; ``application/octet-stream`` where there is none.
        encoding: How the body is encoded, as :func:`~pipeline.contracts.bodies.encoding_of` names it.
        most_bytes: Most bytes that the body may have without its encoding.
    """

    path: str = field(repr=False)
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    client: str = "-"
    content_type: str = field(default="application/octet-stream", repr=False)
    encoding: str = ""
    most_bytes: int = LARGEST_BODY

    @classmethod
    def received(
        cls, path: str, headers: Headers, body: bytes, client: str = "-", most_bytes: int = LARGEST_BODY
    ) -> Self:
        """Return a request as it arrived; its headers say how to read the body.

        Args:
            path: Path below the webhook's own.
            headers: All of them, names in lower case.
            body: The raw bytes.
            client: Address of the sender.
            most_bytes: Most bytes that the body may have without its encoding.
        """
        content_type, encoding = content_type_of(headers), encoding_of(headers, body)
        return cls(path, headers, body, client, content_type, encoding, most_bytes)

    def as_stored(self, path: str, headers: Headers) -> WebhookRequest:
        """Return the request with the path and the headers that are stored with its record."""
        return WebhookRequest(path, headers, self.body, self.client, self.content_type, self.encoding, self.most_bytes)

    def check_expansion(self) -> None:
        """Raise BodyTooLarge if the body expands to more than ``most_bytes``; other faults are left to the source."""
        if self.encoding:
            with contextlib.suppress(UnreadableBody):
                _ = self.plain_body

    @property
    def plain_body(self) -> bytes:
        """The body without its content encoding. It is expanded each time, so that nobody keeps it beside the body.

        Raises:
            UnreadableBody: Its encoding is unknown or broken.
            BodyTooLarge: It expands to more than ``most_bytes`` bytes.
        """
        return plain_body(self.body, self.encoding, self.most_bytes)

    @property
    def json_body(self) -> bytes:
        """The JSON that the body holds, also in a form; it may still be no JSON. Raises as ``plain_body``."""
        return json_of(self.plain_body, self.content_type)

    @property
    def repeated_body(self) -> bytes:
        """What is equal in every repeat of the request, for ids: senders may compress each repeat in another way."""
        try:
            return self.plain_body
        except InvalidBody:
            return self.body


@dataclass(frozen=True, slots=True)
class Verified:
    """A request is authentic.

    Attributes:
        by: Id of the secret, or name of what proved it; never a secret value.
        path: The request's path without a part of it that is a secret.
    """

    by: str
    path: str


class Verifier(Protocol):
    """Decides whether a request comes from the expected sender. Pure: the same input, the same answer."""

    @property
    def stored_headers(self) -> frozenset[str]:
        """Lower-case names of the headers to store with the record: to verify it again, and for its identity.

        Never one that is a secret itself.
        """
        ...

    def check_head(self, request: WebhookRequest, now: datetime) -> None:
        """Return if a body could still prove the request authentic. Called before the body is read, so keep it cheap.

        A verifier whose headers decide nothing returns at once; ``verify`` decides anyway.

        Args:
            request: As received so far; its body is empty, whatever follows.
            now: Aware datetime, as for ``verify``.

        Raises:
            SignatureRefused: Path, headers and client's address decide alone: ``verify`` would raise it for any body.
        """
        ...

    def verify(self, request: WebhookRequest, now: datetime) -> Verified:
        """Return what proved the request authentic.

        Args:
            request: As received.
            now: Aware datetime; decides which secrets are active and how old a timestamp is.

        Raises:
            SignatureRefused: Nothing proved it; ``reason`` says why, ``fault`` who has to fix it.
        """
        ...


@runtime_checkable
class Explainable(Protocol):
    """A verifier that can name the scheme it asks, for commands that explain a verification step by step."""

    def scheme_for(self, request: WebhookRequest) -> Scheme | None:
        """Return the scheme that decides about this request; None if something else than a signature decides."""
        ...


class SchemeVerifier:
    """Asks a verification scheme, which knows neither path nor sender.

    Args:
        scheme: Decides by headers, body and time.
        also_stored: Lower-case names of more headers to store, such as the one with the event's id.
        signed_body: Which bytes of an encoded body are signed.
    """

    def __init__(
        self, scheme: Scheme, also_stored: frozenset[str] = frozenset(), signed_body: SignedBody = "as-sent"
    ) -> None:
        self._scheme = scheme
        self._signed_body = signed_body
        self.stored_headers = scheme.stored_headers | also_stored

    def check_head(self, request: WebhookRequest, now: datetime) -> None:
        """See Verifier."""
        self._scheme.check_head(request.headers, now)

    def verify(self, request: WebhookRequest, now: datetime) -> Verified:
        """See Verifier."""
        return Verified(self._scheme.verify(request.headers, self.signed_bytes(request), now), request.path)

    def signed_bytes(self, request: WebhookRequest) -> bytes:
        """Return what the sender signed of the body.

        Raises:
            SignatureRefused: The sender signs the body without its encoding, which cannot be removed.
            BodyTooLarge: The same body expands to more than the request's ``most_bytes``.
        """
        if self._signed_body == "as-sent":
            return request.body
        try:
            return request.plain_body
        except UnreadableBody:
            raise SignatureRefused(
                Reason.BODY_ENCODING,
                "The body's encoding is unknown or broken, and its signature covers the plain body",
            ) from None

    def scheme_for(self, _request: WebhookRequest) -> Scheme:
        """See Explainable."""
        return self._scheme


@dataclass(frozen=True, slots=True)
class Identified:
    """Which event a request is.

    Attributes:
        topic: The topic of its record.
        key: The record's key: equal keys stay in order.
        id: The event's deterministic id (``ce_id``): a repeated request is the same event.
        type: The event's type (``ce_type``).
        subject: What it is about (``ce_subject``).
        subject_in_logs: Whether a log may name the subject: not where it is text of the sender's choice.
        dataschema: URI of the body's schema (``ce_dataschema``), where there is one.
        job_guid: The job, where it is about one.
        expires_at: When that job expires. None: the ingress asks the partner, which reads the body once more.
        facts: What the audit log says about it: counts, ids, times; no URL, no card data.
    """

    topic: TopicName
    key: str
    id: str
    type: str
    subject: str
    dataschema: str | None = None
    job_guid: UUID | None = None
    expires_at: datetime | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    subject_in_logs: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """How the requests of a source are answered.

    Attributes:
        success: Status once the event is durable.
        unverified: Status of a well-formed, fresh request that no secret verifies; 503 raises an alarm.
        invalid: What happens to an authentic request that does not fit: ``refuse`` answers 422, ``keep`` answers
            success and raises an alarm; either way it is durable in quarantine before the answer.
        any_media_type: Whether any Content-Type and Content-Encoding is accepted: a refusal would lose the event. A
            body in an unknown encoding does not fit.
        below: Whether every path below the webhook's own belongs to it too.
        audit_accepted: Whether the audit log names each accepted event.
    """

    success: SuccessStatus = 202
    unverified: UnverifiedStatus = 401
    invalid: Literal["refuse", "keep"] = "refuse"
    any_media_type: bool = False
    below: bool = False
    audit_accepted: bool = True


class Source(Protocol):
    """Identifies the requests of one sender. Pure: while the configuration stays, the same request, the same answer."""

    @property
    def policy(self) -> Policy:
        """How they are answered."""
        ...

    def identify(self, request: WebhookRequest) -> Identified:
        """Return which event an authentic request is.

        Raises:
            InvalidBody: The request does not fit; every finding names field, rule and remedy.
        """
        ...

    def quarantine(self, request: WebhookRequest) -> TopicName:
        """Return the topic for an authentic request that does not fit."""
        ...


class SourceKind(Protocol):
    """A class that an entry point of the group ``card_pipeline.sources`` names; its constructor takes no parameters."""

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - a class inside the class
        """Model of what ``options`` of its table may hold; it should refuse unknown keys."""
        ...

    def source(self, name: str, options: Any) -> Source:
        """Return the source of one webhook.

        Args:
            name: The webhook's name: part of every key and id.
            options: An instance of ``Options``.
        """
        ...

    def verifier(self, name: str, options: Any, secrets: Sequence[Secret]) -> Verifier:
        """Return what verifies the requests to one webhook.

        Args:
            name: The webhook's name.
            options: An instance of ``Options``.
            secrets: As their files hold them, with the periods in which they are active.

        Raises:
            FatalError: A secret cannot be used.
        """
        ...
