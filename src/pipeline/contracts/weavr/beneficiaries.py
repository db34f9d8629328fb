"""Events of trusted beneficiaries."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.bank_accounts import FasterPaymentsDetails, IbanDetails
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.references import InstrumentId
from pipeline.contracts.weavr.wire import Country, Date, Id, Instant, Tag


class BusinessBeneficiary(WeavrObject):
    """A beneficiary that is a business."""

    business_name: str


class ConsumerBeneficiary(WeavrObject):
    """A beneficiary that is a person."""

    nationality: Country | None = None
    date_of_birth: Date | None = None
    full_name: str


class BeneficiaryInformation(WeavrObject):
    """The identity of a beneficiary: a business or a person."""

    business_beneficiary_type: BusinessBeneficiary | None = None
    consumer_beneficiary_type: ConsumerBeneficiary | None = None


class InstrumentBeneficiary(WeavrObject):
    """A beneficiary that has a card or an account with Weavr."""

    instrument: InstrumentId


class BankAccountBeneficiary(WeavrObject):
    """A beneficiary with an account at another bank."""

    beneficiary_name: str | None = None
    address: str | None = None
    bank_name: str | None = None
    bank_address: str | None = None
    bank_country: Country | None = None
    sepa_bank_details: IbanDetails | None = None
    faster_payments_bank_details: FasterPaymentsDetails | None = None


class BeneficiaryDetails(WeavrObject):
    """The account of a beneficiary, at Weavr or at another bank."""

    instrument_details_beneficiary: InstrumentBeneficiary | None = None
    bank_account_details_beneficiary: BankAccountBeneficiary | None = None


class BatchBeneficiary(WeavrObject):
    """One beneficiary of a batch."""

    id: Id
    external_refs: tuple[str, ...] | None = None
    group: str | None = None
    trust_level: known.BeneficiaryTrustLevel
    beneficiary_information: BeneficiaryInformation
    beneficiary_details: BeneficiaryDetails
    state: known.BeneficiaryState
    validation_failure: known.BeneficiaryValidationFailure | None = None


class BeneficiaryBatchEvent(WeavrEvent):
    """A batch of trusted beneficiaries is being added or removed."""

    id: Id
    operation: known.BeneficiaryBatchOperation
    tag: Tag | None = None
    published_timestamp: Instant
    event_type: known.BeneficiaryBatchEventType
    beneficiaries: tuple[BatchBeneficiary, ...]
