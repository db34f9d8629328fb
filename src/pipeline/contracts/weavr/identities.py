"""Events of corporates, consumers and users: due diligence, activation, deactivation."""

from __future__ import annotations

from typing import Annotated

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.wire import DEPRECATED, Id, Instant


class VerifiedBeneficiary(WeavrObject):
    """The beneficiary of a due diligence."""

    type: known.BeneficiaryType | None = None
    first_name: str | None = None
    middle_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    status: known.KyiStatus | None = None
    ongoing_kyb_status: known.KyiStatus | None = None


class KybInformation(WeavrObject):
    """More information about the corporate."""

    corporate_id: Id | None = None
    corporate_name: str | None = None
    root_user_email: str | None = None
    kyb_status: known.KyiStatus | None = None
    beneficiary: VerifiedBeneficiary | None = None
    document_expiry_date: Instant | None = None
    identity_restriction_date: Instant | None = None


class KycInformation(WeavrObject):
    """More information about the consumer."""

    document_expiry_date: Instant | None = None
    identity_restriction_date: Instant | None = None


class KybEvent(WeavrEvent):
    """A corporate's due diligence (KYB) changed its status."""

    corporate_id: Id | None = None
    corporate_email: str | None = None
    status: known.KyiStatus | None = None
    details: tuple[known.CorporateKybFailureReason, ...] | None = None
    rejection_comment: str | None = None
    ongoing_status: known.KyiStatus | None = None


class BeneficiaryVerifiedEvent(WeavrEvent):
    """The due diligence of a corporate's beneficiary changed."""

    event: tuple[known.BeneficiaryEventType, ...] | None = None
    event_details: tuple[known.CorporateKybFailureReason, ...] | None = None
    additional_information: KybInformation | None = None
    rejection_comment: str | None = None


class KycEvent(WeavrEvent):
    """A consumer's due diligence (KYC) changed its status."""

    consumer_id: Id | None = None
    consumer_email: str | None = None
    status: known.KyiStatus | None = None
    details: tuple[known.KycRejectionReason, ...] | None = None
    rejection_comment: str | None = None
    kyc_level: Annotated[known.KycLevel | None, DEPRECATED] = None
    ongoing_status: known.KyiStatus | None = None
    ongoing_kyc_level: Annotated[known.KycLevel | None, DEPRECATED] = None
    event_timestamp: Instant | None = None
    additional_information: KycInformation | None = None


class IdentityActivatedEvent(WeavrEvent):
    """A corporate or a consumer was activated. Only the e-mail address identifies it."""

    action_done_by: known.ActionDoneBy
    email_address: str


class IdentityDeactivatedEvent(WeavrEvent):
    """A corporate, a consumer or a user was deactivated. Only the e-mail address identifies it."""

    action_done_by: known.ActionDoneBy
    email_address: str
    reason_code: known.IdentityDeactivatedReasonCode
