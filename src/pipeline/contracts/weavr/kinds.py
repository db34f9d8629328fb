"""The table of Weavr's events: path, type, topic and entity of each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pipeline.contracts.headers import schema_uri
from pipeline.contracts.topics import Topic
from pipeline.contracts.weavr.authentication import EnrolmentEvent, LoginEvent, StepupEvent
from pipeline.contracts.weavr.beneficiaries import BeneficiaryBatchEvent
from pipeline.contracts.weavr.bulk_operations import BulkProcessProgressEvent
from pipeline.contracts.weavr.card_payments import ManagedCardsCardPaymentEvent
from pipeline.contracts.weavr.correspondent_bank_transfers import CorrespondentBankTransferEvent
from pipeline.contracts.weavr.event import WeavrEvent
from pipeline.contracts.weavr.fees import ChargeFeeEvent
from pipeline.contracts.weavr.ibans import IbanEvent
from pipeline.contracts.weavr.identities import (
    BeneficiaryVerifiedEvent,
    IdentityActivatedEvent,
    IdentityDeactivatedEvent,
    KybEvent,
    KycEvent,
)
from pipeline.contracts.weavr.linked_accounts import LinkedAccountEvent
from pipeline.contracts.weavr.managed_accounts import (
    ManagedAccountEvent,
    ManagedAccountLowBalanceEvent,
    ManagedAccountsDepositEvent,
    ManualTransactionEvent,
)
from pipeline.contracts.weavr.managed_cards import (
    ManagedCardsAdjustmentEvent,
    ManagedCardsAuthorisationEvent,
    ManagedCardsExpiryAndRenewalEvent,
    ManagedCardsReplacementEvent,
    ManagedCardsSettlementEvent,
    ManagedCardsStateChangeEvent,
    ManagedCardsUpgradeToPhysicalEvent,
)
from pipeline.contracts.weavr.outgoing_wire_transfers import OutgoingWireTransferEvent
from pipeline.contracts.weavr.transfers import SendEvent, TransferEvent

_INSTRUMENTS: Final[Mapping[str, str]] = {"managed_cards": "card", "managed_accounts": "account"}
_OBJECTS: Final = (dict, Mapping)
"""Types that hold fields. A JSON reader makes the first, and isinstance finds it much faster than the second."""
_HASH_DIGITS: Final = 16
_LONGEST: Final = 256
"""Maximum length of an id, in characters, that a key holds unchanged. A record contains the id four times, so with an
id that fills the whole body it would be too large for the broker, and the event would be lost."""


@dataclass(frozen=True, slots=True)
class Entity:
    """The position of an entity's id in the body of an event.

    Attributes:
        name: Kind of entity, such as ``card``; ``instrument`` means card or account, by the ``type`` beside the id.
        path: Field names that lead from the body to the id.
        personal: Whether the id is an e-mail address. Keys then hold 16 hex digits of its SHA-256, which only hides it
            from a casual look. Keys do the same for an id of more than 256 characters.
    """

    name: str
    path: tuple[str, ...]
    personal: bool = False

    def find(self, body: Mapping[str, Any]) -> str | None:
        """Return ``name/id`` with the id in the body, or its digest; None if the body has no id."""
        holder: Any = body
        for step in self.path[:-1]:
            holder = holder.get(step) if isinstance(holder, _OBJECTS) else None
        found = holder.get(self.path[-1]) if isinstance(holder, _OBJECTS) else None
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)  # ids are text on the wire today, but an integer fits too
        if not isinstance(found, str) or not found:
            return None
        name = self.name
        if name == "instrument":
            name = _INSTRUMENTS.get(str(holder.get("type")), name)
        if self.personal or len(found) > _LONGEST:
            found = hashlib.sha256(found.encode()).hexdigest()[:_HASH_DIGITS]
        return f"{name}/{found}"


@dataclass(frozen=True)  # no slots: cached properties keep the names, which every event needs
class EventKind:
    """One kind of event.

    Attributes:
        path: The path that Weavr appends to the base URL, such as ``/managed_cards/authorisations/watch``.
        topic: Topic of its records.
        model: Model of its body.
        entities: Possible subjects; the first one whose id the body contains is the subject.
        signed: Whether Weavr signs it.
        version: Version of the schema; a breaking change needs a new version.
    """

    path: str
    topic: Topic
    model: type[WeavrEvent]
    entities: tuple[Entity, ...]
    signed: bool = True
    version: int = 1

    @cached_property
    def type(self) -> str:
        """The event's type (``ce_type``), such as ``weavr.managed_cards.authorisations``."""
        return "weavr." + self.path.strip("/").removesuffix("/watch").replace("/", ".")

    @property
    def category(self) -> str:
        """The topic's last part, such as ``managed-cards``."""
        return self.topic.rpartition(".")[2]

    @cached_property
    def dataschema(self) -> str:
        """``$id`` of its JSON schema (``ce_dataschema``)."""
        return schema_uri(self.type, self.version)

    def subject(self, body: Mapping[str, Any]) -> str:
        """Return the subject (``ce_subject``), such as ``card/1234``; the type if the body names no entity."""
        for entity in self.entities:
            subject = entity.find(body)
            if subject:
                return subject
        return self.type

    def key(self, integration: str, body: Mapping[str, Any]) -> str:
        """Return the partition key, which keeps the events of one entity in order."""
        return entity_key(integration, self.subject(body))


def entity_key(integration: str, subject: str) -> str:
    """Return the partition key for a subject."""
    return f"{integration}/{subject}"


def _kind(path: str, topic: Topic, model: type[WeavrEvent], *entities: Entity, signed: bool = True) -> EventKind:
    return EventKind(f"/{path}/watch", topic, model, entities, signed)


def _at(name: str, *path: str, personal: bool = False) -> Entity:
    return Entity(name, path, personal=personal)


_CARD: Final = _at("card", "id", "id")
_CORPORATE_EMAIL: Final = _at("corporate-email", "emailAddress", personal=True)
_CONSUMER_EMAIL: Final = _at("consumer-email", "emailAddress", personal=True)

KINDS: Final[tuple[EventKind, ...]] = (
    _kind(
        "corporates/kyb",
        Topic.EVENTS_CORPORATES,
        KybEvent,
        _at("corporate", "corporateId"),
        _at("corporate-email", "corporateEmail", personal=True),
    ),
    _kind(
        "corporates/kyb/beneficiaries",
        Topic.EVENTS_CORPORATES,
        BeneficiaryVerifiedEvent,
        _at("corporate", "additionalInformation", "corporateId"),
    ),
    _kind("corporates/corporate_activated", Topic.EVENTS_CORPORATES, IdentityActivatedEvent, _CORPORATE_EMAIL),
    _kind("corporates/corporate_deactivated", Topic.EVENTS_CORPORATES, IdentityDeactivatedEvent, _CORPORATE_EMAIL),
    _kind(
        "consumers/kyc",
        Topic.EVENTS_CONSUMERS,
        KycEvent,
        _at("consumer", "consumerId"),
        _at("consumer-email", "consumerEmail", personal=True),
    ),
    _kind("consumers/consumer_activated", Topic.EVENTS_CONSUMERS, IdentityActivatedEvent, _CONSUMER_EMAIL),
    _kind("consumers/consumer_deactivated", Topic.EVENTS_CONSUMERS, IdentityDeactivatedEvent, _CONSUMER_EMAIL),
    _kind("managed_cards/state_change", Topic.EVENTS_MANAGED_CARDS, ManagedCardsStateChangeEvent, _CARD),
    _kind("managed_cards/authorisations", Topic.EVENTS_MANAGED_CARDS, ManagedCardsAuthorisationEvent, _CARD),
    _kind("managed_cards/adjustments", Topic.EVENTS_MANAGED_CARDS, ManagedCardsAdjustmentEvent, _CARD),
    _kind("managed_cards/settlements", Topic.EVENTS_MANAGED_CARDS, ManagedCardsSettlementEvent, _CARD),
    _kind("managed_cards/expiries", Topic.EVENTS_MANAGED_CARDS, ManagedCardsExpiryAndRenewalEvent, _CARD),
    _kind(
        "managed_cards/physical_cards_upgrade", Topic.EVENTS_MANAGED_CARDS, ManagedCardsUpgradeToPhysicalEvent, _CARD
    ),
    _kind("managed_cards/replacement", Topic.EVENTS_MANAGED_CARDS, ManagedCardsReplacementEvent, _CARD),
    _kind(
        "managed_cards/payments",
        Topic.EVENTS_MANAGED_CARDS,
        ManagedCardsCardPaymentEvent,
        _at("card", "cardPayment", "card", "id"),
    ),
    _kind(
        "managed_accounts", Topic.EVENTS_MANAGED_ACCOUNTS, ManagedAccountEvent, _at("account", "account", "id", "id")
    ),
    _kind(
        "managed_accounts/deposits",
        Topic.EVENTS_MANAGED_ACCOUNTS,
        ManagedAccountsDepositEvent,
        _at("account", "id", "id"),
    ),
    _kind(
        "managed_accounts/low_balance",
        Topic.EVENTS_MANAGED_ACCOUNTS,
        ManagedAccountLowBalanceEvent,
        _at("account", "id", "id"),
    ),
    _kind(
        "linked_accounts",
        Topic.EVENTS_LINKED_ACCOUNTS,
        LinkedAccountEvent,
        _at("linked-account", "linkedAccount", "id"),
    ),
    _kind("transfers", Topic.EVENTS_TRANSFERS, TransferEvent, _at("transfer", "transfer", "id", "id")),
    _kind("send", Topic.EVENTS_SEND, SendEvent, _at("send", "send", "id", "id")),
    _kind(
        "outgoing_wire_transfers",
        Topic.EVENTS_OUTGOING_WIRE_TRANSFERS,
        OutgoingWireTransferEvent,
        _at("wire-transfer", "transfer", "id", "id"),
    ),
    _kind(
        "manual_transactions",
        Topic.EVENTS_MANUAL_TRANSACTIONS,
        ManualTransactionEvent,
        _at("instrument", "targetInstrument", "id"),
    ),
    _kind("fees", Topic.EVENTS_FEES, ChargeFeeEvent, _at("instrument", "chargeFee", "source", "id")),
    _kind("login", Topic.EVENTS_LOGIN, LoginEvent, _at("credential", "credential", "id")),
    _kind("stepup", Topic.EVENTS_STEPUP, StepupEvent, _at("credential", "credential", "id")),
    _kind(
        "authentication_factors",
        Topic.EVENTS_AUTHENTICATION_FACTORS,
        EnrolmentEvent,
        _at("credential", "credentialId", "id"),
    ),
    _kind("beneficiaries/batch", Topic.EVENTS_BENEFICIARIES, BeneficiaryBatchEvent, _at("beneficiary-batch", "id")),
    _kind(
        "bulk_process_end",
        Topic.EVENTS_BULK_OPERATIONS,
        BulkProcessProgressEvent,
        _at("bulk-process", "bulkId"),
        signed=False,
    ),
    _kind(
        "auth/users/user_deactivated",
        Topic.EVENTS_AUTH_USERS,
        IdentityDeactivatedEvent,
        _at("user-email", "emailAddress", personal=True),
    ),
    _kind("ibans", Topic.EVENTS_IBANS, IbanEvent, _at("iban", "iban", "id")),
    _kind(
        "correspondent_bank_transfers",
        Topic.EVENTS_CORRESPONDENT_BANK_TRANSFERS,
        CorrespondentBankTransferEvent,
        _at("correspondent-transfer", "transfer", "id"),
    ),
)
"""All 32, in the order of Weavr's webhook description v2."""

BY_PATH: Final[Mapping[str, EventKind]] = {kind.path: kind for kind in KINDS}
BY_TYPE: Final[Mapping[str, EventKind]] = {kind.type: kind for kind in KINDS}
