"""Events of IBANs."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.bank_accounts import AccountReference
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.wire import Currency, Id, Instant, Tag


class IbanInstrumentState(WeavrObject):
    """The state of an IBAN."""

    state: known.IbanState
    destroyed_reason: known.DestroyedReason | None = None


class IbanAccountDetails(WeavrObject):
    """The details for payments into the account through one network."""

    beneficiary_name_and_surname: str
    beneficiary_bank: str
    beneficiary_bank_address: str
    payment_reference: str | None = None
    details: AccountReference


class IbanInstrument(WeavrObject):
    """An IBAN of an account."""

    id: Id
    managed_account_id: Id
    profile_id: Id
    incoming_wire_transfer_profile_id: Id
    tag: Tag | None = None
    friendly_name: str
    currency: Currency
    state: IbanInstrumentState
    creation_timestamp: Instant
    bank_account_details: tuple[IbanAccountDetails, ...] | None = None


class IbanEvent(WeavrEvent):
    """An IBAN was created, updated, requested, rejected, blocked, unblocked or destroyed."""

    iban: IbanInstrument
    published_timestamp: Instant
    type: known.IbanEventType
