"""The parts of a source of webhooks: verification, identification and policy."""

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
"""The HTTP status for success that a sender expects."""

SignedBody = Literal["as-sent", "plain"]
"""The bytes of an encoded body that a sender signs: as sent, or before encoding."""

UnverifiedStatus = Literal[401, 503]
"""Answer to a well-formed, fresh request that no secret verifies: 401 is final, 503 makes the sender repeat it."""

UNKNOWN_PATH: Final = "unknown_path"
"""Rule for a path of an unknown kind of event. The sender may have added a kind."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """The parts of a request that verification and identification use.

    Attributes:
        path: Path relative to the webhook's path, such as ``/managed_cards/watch``; may be empty.
        headers: Names in lower case, values as received, with repetitions. A verifier gets all headers. A source gets
            only those that the record stores, so that it finds the same result from the record.
        body: The raw bytes.
        client: Address of the sender, behind trusted proxies; ``-`` if it is not known.
        content_type: As received; ``application/octet-stream`` without one.
        encoding: Encoding of the body, from :func:`~pipeline.contracts.bodies.encoding_of`.
        most_bytes: Maximum size of the decoded body in bytes.
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
        """Return a request as it arrived. Its headers define how to read the body.

        Args:
            path: Path relative to the webhook's path.
            headers: All headers, with lower-case names.
            body: The raw bytes.
            client: Address of the sender.
            most_bytes: Maximum size of the decoded body in bytes.
        """
        content_type, encoding = content_type_of(headers), encoding_of(headers, body)
        return cls(path, headers, body, client, content_type, encoding, most_bytes)

    def as_stored(self, path: str, headers: Headers) -> WebhookRequest:
        """Return the request with the path and the headers that its record stores."""
        return WebhookRequest(path, headers, self.body, self.client, self.content_type, self.encoding, self.most_bytes)

    def check_expansion(self) -> None:
        """Raise BodyTooLarge if the body expands to more than ``most_bytes``. The source reports other faults."""
        if self.encoding:
            with contextlib.suppress(UnreadableBody):
                _ = self.plain_body

    @property
    def plain_body(self) -> bytes:
        """The decoded body. It is decoded on each access, so that memory holds only one form of it.

        Raises:
            UnreadableBody: Its encoding is unknown or broken.
            BodyTooLarge: It expands to more than ``most_bytes`` bytes.
        """
        return plain_body(self.body, self.encoding, self.most_bytes)

    @property
    def json_body(self) -> bytes:
        """The JSON text in the body, also in a form. It may be invalid JSON. Raises as ``plain_body``."""
        return json_of(self.plain_body, self.content_type)

    @property
    def repeated_body(self) -> bytes:
        """The bytes that are equal in every repeat, for ids: a sender may compress each repeat differently."""
        try:
            return self.plain_body
        except InvalidBody:
            return self.body


@dataclass(frozen=True, slots=True)
class Verified:
    """The proof that a request is authentic.

    Attributes:
        by: Id of the secret, or name of another protection; never a secret value.
        path: The request's path, without a secret segment.
    """

    by: str
    path: str


class Verifier(Protocol):
    """Decides whether a request comes from the expected sender. Equal input gives equal results."""

    @property
    def stored_headers(self) -> frozenset[str]:
        """Lower-case names of the headers that the record stores, to verify it again and for its identity.

        Never the name of a header that is itself a secret.
        """
        ...

    def check_head(self, request: WebhookRequest, now: datetime) -> None:
        """Refuse a request that no body can make authentic. Called before the body is read, so keep it cheap.

        A verifier whose headers prove nothing may return at once, since ``verify`` decides anyway.

        Args:
            request: The request without its body.
            now: Aware datetime, as for ``verify``.

        Raises:
            SignatureRefused: ``verify`` would raise it for any body.
        """
        ...

    def verify(self, request: WebhookRequest, now: datetime) -> Verified:
        """Return the proof that the request is authentic.

        Args:
            request: The request as received.
            now: Aware datetime. It decides which secrets are active and how old a timestamp is.

        Raises:
            SignatureRefused: There is no proof; ``reason`` says why, and ``fault`` who must fix it.
        """
        ...


@runtime_checkable
class Explainable(Protocol):
    """A verifier that can name its scheme, for commands that explain a verification step by step."""

    def scheme_for(self, request: WebhookRequest) -> Scheme | None:
        """Return the scheme that verifies this request; None if it has no signature to verify."""
        ...


class SchemeVerifier:
    """Verifies with one scheme, whatever the path and the sender's address.

    Args:
        scheme: Verifies headers, body and time.
        also_stored: Lower-case names of further headers to store, such as the one with the event's id.
        signed_body: The bytes of an encoded body that the sender signs.
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
        """Return the bytes of the body that the sender signed.

        Raises:
            SignatureRefused: The sender signs the decoded body, but the body cannot be decoded.
            BodyTooLarge: The decoded body is larger than the request's ``most_bytes``.
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
    """The event in a request.

    Attributes:
        topic: The topic of its record.
        key: The record's key; records with equal keys stay in order.
        id: The event's deterministic id (``ce_id``); a repeated request has the same id.
        type: The event's type (``ce_type``).
        subject: The event's subject (``ce_subject``).
        subject_in_logs: Whether logs may contain the subject; False if the sender may write anything there.
        dataschema: URI of the body's schema (``ce_dataschema``), or None.
        job_guid: GUID of the announced job, or None.
        expires_at: When that job expires. With None, the ingress asks the partner, which reads the body again.
        facts: Facts for the audit log: counts, ids and times, never URLs or card data.
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
    """The rules for answering the requests of a source.

    Attributes:
        success: Status for a durable event.
        unverified: Status for a well-formed, fresh request that no secret verifies; with 503 it raises an alarm.
        invalid: The answer to an authentic but invalid request: ``refuse`` answers 422; ``keep`` answers with success
            and raises an alarm. In both cases the request is durable in quarantine before the answer.
        any_media_type: Whether to accept any Content-Type and Content-Encoding, because a refusal would lose the event.
            A body with an unknown encoding is invalid.
        below: Whether all paths below the webhook's path belong to it too.
        audit_accepted: Whether the audit log has an entry for each accepted event.
    """

    success: SuccessStatus = 202
    unverified: UnverifiedStatus = 401
    invalid: Literal["refuse", "keep"] = "refuse"
    any_media_type: bool = False
    below: bool = False
    audit_accepted: bool = True


class Source(Protocol):
    """Identifies the requests of one sender. With the same configuration, equal requests give equal results."""

    @property
    def policy(self) -> Policy:
        """The rules for answering its requests."""
        ...

    def identify(self, request: WebhookRequest) -> Identified:
        """Return the event in an authentic request.

        Raises:
            InvalidBody: The request is invalid; each finding has field, rule and remedy.
        """
        ...

    def quarantine(self, request: WebhookRequest) -> TopicName:
        """Return the quarantine topic for an authentic but invalid request."""
        ...


class SourceKind(Protocol):
    """A class behind an entry point of the group ``card_pipeline.sources``. Its constructor takes no parameters."""

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - a class inside the class
        """The model of ``options`` in its table. It should refuse unknown keys."""
        ...

    def source(self, name: str, options: Any) -> Source:
        """Return the source of one webhook.

        Args:
            name: The webhook's name. It is part of every key and id.
            options: An instance of ``Options``.
        """
        ...

    def verifier(self, name: str, options: Any, secrets: Sequence[Secret]) -> Verifier:
        """Return the verifier of one webhook.

        Args:
            name: The webhook's name.
            options: An instance of ``Options``.
            secrets: The secrets from their files, with their periods.

        Raises:
            FatalError: A secret cannot be used.
        """
        ...
