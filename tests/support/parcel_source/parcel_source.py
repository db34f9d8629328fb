"""A custom source as docs/how-to/write-a-source.md describes it: parcels, authenticated by a secret in a header."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from pipeline.contracts import SOURCE_TOPICS, Topic, TopicName, event_id
from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.webhooks.sources import Identified, Policy, SchemeVerifier, WebhookRequest
from pipeline.webhooks.verification import Secret, SharedSecretSpec, scheme_of


class ParcelOptions(BaseModel):
    """What ``[webhooks.NAME.options]`` may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depots: int = Field(ge=1, description="How many depots there are")


class ParcelSource:
    """A body is ``NUMBER STATE``."""

    policy = Policy(success=200, invalid="keep", any_media_type=True, audit_accepted=False)

    def __init__(self, name: str, options: ParcelOptions) -> None:
        """Take the source's name and its options."""
        self._name = name
        self._depots = options.depots

    def identify(self, request: WebhookRequest) -> Identified:
        """See pipeline.webhooks.sources.Source."""
        number, _, state = request.body.decode("ascii", "replace").partition(" ")
        if not number.isdecimal() or not state:
            raise InvalidBody([Finding("", "parcel", "Send number and state, such as: 17 delivered")])
        return Identified(
            topic=f"{SOURCE_TOPICS}{self._name}",
            key=f"{self._name}/{int(number) % self._depots}",
            id=event_id(self._name, request.body),
            type=f"{self._name}.parcel",
            subject=number,
        )

    def quarantine(self, _request: WebhookRequest) -> TopicName:
        """See pipeline.webhooks.sources.Source."""
        return Topic.WEBHOOK_QUARANTINE


class Parcels:
    """The entry point."""

    Options = ParcelOptions

    def source(self, name: str, options: ParcelOptions) -> ParcelSource:
        """See pipeline.webhooks.sources.SourceKind."""
        return ParcelSource(name, options)

    def verifier(self, _name: str, _options: ParcelOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See pipeline.webhooks.sources.SourceKind."""
        spec = SharedSecretSpec(scheme="shared-secret", header="X-Parcel-Key")
        return SchemeVerifier(scheme_of(spec, secrets))


class Broken:
    """No kind of source: it has no options."""


class NeedsParameters(Parcels):
    """No kind of source: its constructor takes a parameter."""

    def __init__(self, depot: str) -> None:
        """Take a parameter that is never given."""
        self.depot = depot


class HalfKind:
    """No kind of source: it has no verifier."""

    Options = ParcelOptions
    source = ParcelSource
