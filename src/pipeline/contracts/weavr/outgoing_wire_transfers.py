"""Events of wire transfers to bank accounts."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.bank_accounts import FasterPaymentsDetails, IbanDetails, PayeeValidation
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money
from pipeline.contracts.weavr.references import InstrumentId, TypedId
from pipeline.contracts.weavr.wire import Country, Date, Id, Instant, Tag


class SwiftDetails(WeavrObject):
    """A bank account in the SWIFT network; ``swift`` is the bank's code (BIC)."""

    iban: str
    swift: str


class ExternalAccountId(WeavrObject):
    """The id of an account outside Weavr."""

    type: known.ExternalAccountType
    id: Id


class WireDestination(WeavrObject):
    """The payee, in the form of one network."""

    beneficiary_name: str
    beneficiary_address: str | None = None
    beneficiary_bank_name: str | None = None
    beneficiary_bank_address: str | None = None
    beneficiary_bank_country: Country | None = None
    beneficiary_account_type: known.AccountType | None = None
    beneficiary_nationality: Country | None = None
    beneficiary_date_of_birth: Date | None = None
    sepa: IbanDetails | None = None
    faster_payments: FasterPaymentsDetails | None = None
    swift: SwiftDetails | None = None


class OutgoingWireTransfer(WeavrObject):
    """A wire transfer to a bank account."""

    id: TypedId
    profile_id: Id
    tag: Tag | None = None
    source: InstrumentId
    transfer_amount: Money | None = None
    description: str | None = None
    type: known.OutgoingWireTransferType
    destination: WireDestination
    external_account_id: ExternalAccountId | None = None
    beneficiary_id: Id | None = None
    state: known.OutgoingWireTransferState
    challenge_exemption_reason: known.ChallengeExemptionReason | None = None
    creation_timestamp: Instant
    transaction_amount: Money
    transaction_fee: Money | None = None
    conflict: known.OWTConflictErrorCode | None = None
    scheduled_timestamp: Instant | None = None
    cancellation_reason: str | None = None
    execution_timestamp: Instant | None = None
    validation_outcomes: tuple[PayeeValidation, ...] | None = None


class OutgoingWireTransferEvent(WeavrEvent):
    """An outgoing wire transfer changed its state."""

    owner: TypedId
    transfer: OutgoingWireTransfer
    published_timestamp: Instant
    event_type: known.OutgoingWireTransferEventType
