"""What the ingress knows of a source of webhooks: how a request is verified, what it is, how it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, JsonValue

from pipeline.contracts import Headers, TopicName
from pipeline.webhooks.verification import Scheme, Secret

SuccessStatus = Literal[200, 202, 204]
"""What a sender takes for success, by its source's configuration."""

UnverifiedStatus = Literal[401, 503]
"""Answer to a well-formed, fresh request that no secret verifies: 401 for good, or 503, so that it comes again."""

UNKNOWN_PATH: Final = "unknown_path"
"""Rule of a request whose path names no known kind of event; its sender may have added a kind."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, as far as it says what it is.

    Attributes:
        path: Path behind the source's own, such as ``/managed_cards/watch``; empty where there is none.
        headers: Names in lower case, values as received, repetitions included. A verifier sees all of them; a provider
            only those that its verifier keeps with the record, so that it finds the same again in the record.
        body: The raw bytes.
        client: Address of the sender, behind proxies that are trusted; ``-`` where it is not known.
    """

    path: str
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    client: str = "-"


@dataclass(frozen=True, slots=True)
class Verified:
    """A request is authentic.

    Attributes:
        by: Id of the secret, or name of what proved it; never a secret value.
        path: The delivery's path without a part of it that is a secret.
    """

    by: str
    path: str


class Verifier(Protocol):
    """Decides whether a request comes from who it should. Pure: the same input, the same answer."""

    @property
    def stored_headers(self) -> frozenset[str]:
        """Lower-case names of the headers to keep with the record: for verifying it again, and for its identity.

        None that is a secret itself.
        """
        ...

    def verify(self, delivery: Delivery, now: datetime) -> Verified:
        """Return what proved the request.

        Args:
            delivery: As received.
            now: Aware datetime; decides which secrets count and how old a timestamp is.

        Raises:
            SignatureRefused: Nothing did; ``reason`` says why, ``fault`` whose fault it is.
        """
        ...


@runtime_checkable
class Explainable(Protocol):
    """A verifier that can say which scheme it asks, for commands that explain step by step."""

    def scheme_for(self, delivery: Delivery) -> Scheme | None:
        """Return the scheme that decides about this delivery; None where something else than a signature does."""
        ...


class SchemeVerifier:
    """Asks a signature scheme, which knows neither path nor sender.

    Args:
        scheme: Decides by headers, body and time.
        also_stored: Lower-case names of more headers to keep, such as those that hold an event's id.
    """

    def __init__(self, scheme: Scheme, also_stored: frozenset[str] = frozenset()) -> None:
        self._scheme = scheme
        self.stored_headers = scheme.stored_headers | also_stored

    def verify(self, delivery: Delivery, now: datetime) -> Verified:
        """See Verifier."""
        return Verified(self._scheme.verify(delivery.headers, delivery.body, now), delivery.path)

    def scheme_for(self, _delivery: Delivery) -> Scheme:
        """See Explainable."""
        return self._scheme


@dataclass(frozen=True, slots=True)
class Identified:
    """What a delivery was found to be.

    Attributes:
        topic: Where its record goes.
        key: The record's key: equal keys stay in order.
        id: The event's deterministic id (``ce_id``): the same delivery again is the same event.
        type: The event's type (``ce_type``).
        subject: What it is about (``ce_subject``).
        dataschema: URI of the body's schema (``ce_dataschema``), where there is one.
        job_guid: The job, where it is about one.
        facts: What the audit log says about it: counts, ids, times; no URL, no card data.
    """

    topic: TopicName
    key: str
    id: str
    type: str
    subject: str
    dataschema: str | None = None
    job_guid: UUID | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a source's requests are answered.

    Attributes:
        success: Status once the event is durable.
        unverified: Status of a well-formed, fresh request that no secret verifies; 503 raises an alarm.
        invalid: What becomes of an authentic delivery that does not fit: ``refuse`` it with 422, or ``keep`` it and
            answer success, with an alarm; either way it is durable in quarantine before the answer.
        any_media_type: Whether Content-Type and Content-Encoding do not matter: where a refusal would lose the event.
        below: Whether every path below the source's own belongs to it too.
        audit_accepted: Whether each accepted event has an audit event of its own.
    """

    success: SuccessStatus = 202
    unverified: UnverifiedStatus = 401
    invalid: Literal["refuse", "keep"] = "refuse"
    any_media_type: bool = False
    below: bool = False
    audit_accepted: bool = True


class Provider(Protocol):
    """Knows one source's deliveries. Pure: the same delivery, the same answer, as long as the configuration stands."""

    @property
    def policy(self) -> Policy:
        """How they are answered."""
        ...

    def identify(self, delivery: Delivery) -> Identified:
        """Return what an authentic delivery is.

        Raises:
            InvalidBody: It cannot be taken; every finding names field, rule and remedy.
        """
        ...

    def quarantine(self, delivery: Delivery) -> TopicName:
        """Return where an authentic delivery goes that cannot be taken."""
        ...


class ProviderKind(Protocol):
    """What an entry point of the group ``card_pipeline.providers`` names: a class without constructor parameters."""

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - a class inside the class
        """Model of what ``options`` of its table may hold; it should refuse what it does not know."""
        ...

    def provider(self, name: str, options: Any) -> Provider:
        """Return the provider of one source.

        Args:
            name: The source's name: part of every key and id.
            options: An instance of ``Options``.
        """
        ...

    def verifier(self, name: str, options: Any, secrets: Sequence[Secret]) -> Verifier:
        """Return what verifies the requests to one source.

        Args:
            name: The source's name.
            options: An instance of ``Options``.
            secrets: As their files hold them, with the dates on which they count.

        Raises:
            FatalError: A secret cannot be used.
        """
        ...
