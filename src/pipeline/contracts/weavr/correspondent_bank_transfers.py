"""Events of transfers through correspondent banks."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.bank_accounts import PayeeValidation
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money
from pipeline.contracts.weavr.references import TypedId
from pipeline.contracts.weavr.wire import AccountNumber, Bic, Country, Date, Iban, Id, Instant, SortCode, Tag


class SourceAccount(WeavrObject):
    """The account that pays."""

    type: known.InstrumentType
    id: Id


class OriginatorAccount(WeavrObject):
    """The originator's account and bank."""

    account: str
    financial_institution: Bic


class SupplementaryInformation(WeavrObject):
    """Documents of the originator. Weavr does not document whether they contain personal data."""

    document_type: known.DocumentType | None = None
    document_number: str | None = None


class Originator(WeavrObject):
    """The payer. A person has an address and a country; a business has those of its registration."""

    tag: Tag | None = None
    name: str | None = None
    address: str | None = None
    country: Country | None = None
    bank_account_details: OriginatorAccount | None = None
    supplementary_information: SupplementaryInformation | None = None
    registration_address: str | None = None
    registration_country: Country | None = None


class Beneficiary(WeavrObject):
    """The payee, by IBAN (SEPA, RIX) or by account number and sort code (Faster Payments)."""

    name: str | None = None
    iban: Iban | None = None
    bank_identifier_code: Bic | None = None
    address: str | None = None
    bank_name: str | None = None
    bank_address: str | None = None
    bank_country: Country | None = None
    nationality: Country | None = None
    date_of_birth: Date | None = None
    type: known.AccountType | None = None
    account_number: AccountNumber | None = None
    sort_code: SortCode | None = None
    secondary_reference: str | None = None


class ExternalData(WeavrObject):
    """One pair that the sender adds to the transfer."""

    name: str
    value: str


class CorrespondentBankTransfer(WeavrObject):
    """A transfer to a bank account through a correspondent bank."""

    id: Id
    profile_id: Id
    tag: Tag | None = None
    source_instrument: SourceAccount
    amount: Money
    originator: Originator
    beneficiary: Beneficiary
    purpose: str
    description: str | None = None
    external_data: tuple[ExternalData, ...] | None = None
    state: known.CorrespondentBankingOwtState
    creation_timestamp: Instant
    scheduled_timestamp: Instant | None = None
    cancellation_reason: str | None = None
    validation_outcomes: tuple[PayeeValidation, ...] | None = None


class CorrespondentBankTransferEvent(WeavrEvent):
    """A correspondent bank transfer changed its state."""

    owner: TypedId
    transfer: CorrespondentBankTransfer
    published_timestamp: Instant
    event_type: known.CorrespondentBankTransferEventType
