"""Weavr's webhooks v2: the table of its events, and a model for each.

An event fits its model if it has the fields that Weavr's description requires, with values of the described types:

- Text has no required form, and enumerations are open, because Weavr changes lengths, patterns and known values often.
  Schemas show them as ``x-pattern`` and ``x-known-values``.
- Ids, times and amounts may be text or integers, whichever the description has for the event, but never fractions.
- Unknown fields are kept. ``null`` fits where a field may be missing. Deprecated fields are never required.
- If the description has several shapes for one object, one model has the fields of all shapes. It requires none of
  them except the ``type`` that distinguishes steps of payments and fees.
"""

from pipeline.contracts.weavr.authentication import EnrolmentEvent, LoginEvent, StepupEvent
from pipeline.contracts.weavr.beneficiaries import BeneficiaryBatchEvent
from pipeline.contracts.weavr.bulk_operations import BulkProcessProgressEvent
from pipeline.contracts.weavr.card_payments import ManagedCardsCardPaymentEvent
from pipeline.contracts.weavr.correspondent_bank_transfers import CorrespondentBankTransferEvent
from pipeline.contracts.weavr.display import masked
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.fees import ChargeFeeEvent
from pipeline.contracts.weavr.ibans import IbanEvent
from pipeline.contracts.weavr.identities import (
    BeneficiaryVerifiedEvent,
    IdentityActivatedEvent,
    IdentityDeactivatedEvent,
    KybEvent,
    KycEvent,
)
from pipeline.contracts.weavr.kinds import BY_PATH, BY_TYPE, KINDS, Entity, EventKind, entity_key
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
from pipeline.contracts.weavr.money import Money, ScaledAmount
from pipeline.contracts.weavr.outgoing_wire_transfers import OutgoingWireTransferEvent
from pipeline.contracts.weavr.references import CredentialId, InstrumentId, TypedId
from pipeline.contracts.weavr.transfers import SendEvent, TransferEvent
from pipeline.contracts.weavr.wire import Instant

__all__ = [
    "BY_PATH",
    "BY_TYPE",
    "KINDS",
    "BeneficiaryBatchEvent",
    "BeneficiaryVerifiedEvent",
    "BulkProcessProgressEvent",
    "ChargeFeeEvent",
    "CorrespondentBankTransferEvent",
    "CredentialId",
    "EnrolmentEvent",
    "Entity",
    "EventKind",
    "IbanEvent",
    "IdentityActivatedEvent",
    "IdentityDeactivatedEvent",
    "Instant",
    "InstrumentId",
    "KybEvent",
    "KycEvent",
    "LinkedAccountEvent",
    "LoginEvent",
    "ManagedAccountEvent",
    "ManagedAccountLowBalanceEvent",
    "ManagedAccountsDepositEvent",
    "ManagedCardsAdjustmentEvent",
    "ManagedCardsAuthorisationEvent",
    "ManagedCardsCardPaymentEvent",
    "ManagedCardsExpiryAndRenewalEvent",
    "ManagedCardsReplacementEvent",
    "ManagedCardsSettlementEvent",
    "ManagedCardsStateChangeEvent",
    "ManagedCardsUpgradeToPhysicalEvent",
    "ManualTransactionEvent",
    "Money",
    "OutgoingWireTransferEvent",
    "ScaledAmount",
    "SendEvent",
    "StepupEvent",
    "TransferEvent",
    "TypedId",
    "WeavrEvent",
    "WeavrObject",
    "entity_key",
    "masked",
]
