"""A provider of one's own, as docs/providers.md tells to write it: parcels, signed by a secret in a header."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from pipeline.contracts import SOURCE_TOPICS, Topic, TopicName, event_id
from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.webhooks.sources import Delivery, Identified, Policy, SchemeVerifier
from pipeline.webhooks.verification import Secret, SharedSecretSpec, scheme_of


class ParcelOptions(BaseModel):
    """What ``[webhooks.NAME.options]`` may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depots: int = Field(ge=1, description="How many depots there are")


class ParcelProvider:
    """A body is ``NUMBER STATE``."""

    policy = Policy(success=200, invalid="keep", any_media_type=True, audit_accepted=False)

    def __init__(self, name: str, options: ParcelOptions) -> None:
        """Take the source's name and its options."""
        self._name = name
        self._depots = options.depots

    def identify(self, delivery: Delivery) -> Identified:
        """See pipeline.webhooks.sources.Provider."""
        number, _, state = delivery.body.decode("ascii", "replace").partition(" ")
        if not number.isdecimal() or not state:
            raise InvalidBody([Finding("", "parcel", "Send number and state, such as: 17 delivered")])
        return Identified(
            topic=f"{SOURCE_TOPICS}{self._name}",
            key=f"{self._name}/{int(number) % self._depots}",
            id=event_id(self._name, delivery.body),
            type=f"{self._name}.parcel",
            subject=number,
        )

    def quarantine(self, _delivery: Delivery) -> TopicName:
        """See pipeline.webhooks.sources.Provider."""
        return Topic.WEBHOOK_QUARANTINE


class Parcels:
    """The entry point."""

    Options = ParcelOptions

    def provider(self, name: str, options: ParcelOptions) -> ParcelProvider:
        """See pipeline.webhooks.sources.ProviderKind."""
        return ParcelProvider(name, options)

    def verifier(self, _name: str, _options: ParcelOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See pipeline.webhooks.sources.ProviderKind."""
        spec = SharedSecretSpec(scheme="shared-secret", header="X-Parcel-Key")
        return SchemeVerifier(scheme_of(spec, secrets))


class Broken:
    """No provider: there are no options."""


class NeedsParameters(Parcels):
    """No provider: nobody could construct it."""

    def __init__(self, depot: str) -> None:
        """Take what nobody gives."""
        self.depot = depot


class HalfProvider:
    """No provider: it verifies nothing."""

    Options = ParcelOptions
    provider = ParcelProvider
