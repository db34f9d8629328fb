"""Payments by card. The event of each step contains the whole payment."""

from __future__ import annotations

from pydantic import StrictBool

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money, ScaledAmount
from pipeline.contracts.weavr.wire import Id, Instant


class PaymentCard(WeavrObject):
    """The card that paid."""

    id: Id
    type: known.InstrumentType
    mode: known.CardMode | None = None
    friendly_name: str | None = None
    name_on_card: str | None = None
    card_brand: known.CardBrand | None = None
    card_number_first_six: str | None = None
    card_number_last_four: str | None = None
    linked_user_id: Id | None = None
    parent_managed_account_id: Id | None = None


class PaymentMerchant(WeavrObject):
    """The merchant that receives the payment."""

    id: Id
    name: str
    name_other: str | None = None
    network_id: Id | None = None
    category_code: str | None = None
    description: str | None = None
    street: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None
    telephone: str | None = None
    url: str | None = None
    contact: str | None = None
    reference: str | None = None
    logo_url: str | None = None


class PaymentForwarding(WeavrObject):
    """Whether Weavr asked the integration to authorise the payment, and the answer."""

    triggered: StrictBool | None = None
    decision_outcome: known.CardPaymentAuthForwardingDecisionOutcome | None = None
    innovator_timed_out: StrictBool | None = None


class CardPaymentForex(WeavrObject):
    """The conversion between currencies."""

    exchange_rate: ScaledAmount | None = None
    padding: Money | None = None


class CardPaymentFee(WeavrObject):
    """One fee of a step; a platform fee has an id and a subtype."""

    type: known.CardPaymentFeeType
    id: Id | None = None
    subtype: known.CardPaymentFeeSubtype | None = None
    amount: Money | None = None


class CardPaymentStep(WeavrObject):
    """One step of a payment. Its ``type`` decides which fields it has."""

    type: known.CardPaymentEventType
    id: Id | None = None
    subtype: known.CardPaymentSubtype | None = None
    reversal: StrictBool | None = None
    result: known.CardPaymentEventResult | None = None  # authorisations
    authorisation_category: known.AuthorisationCategory | None = None  # authorisations
    auth_forwarding_details: PaymentForwarding | None = None  # authorisations
    decline_reason: known.CardPaymentDeclineReason | None = None  # authorisations
    auth_rule_failed_reason: str | None = None  # authorisations
    cancellation_reason: str | None = None  # authorisations
    transaction_amount: Money | None = None
    billing_amount: Money | None = None
    forex: CardPaymentForex | None = None  # authorisations
    user_amount: Money | None = None
    user_exchange_rate: ScaledAmount | None = None
    auth_code: str | None = None
    fees: tuple[CardPaymentFee, ...] | None = None
    timestamp: Instant | None = None
    processed_timestamp: Instant | None = None
    settlement_state: known.CardPaymentSettlementState | None = None  # settlements
    exchange_rate: ScaledAmount | None = None  # settlements, refunds and credits
    reason_code: str | None = None  # refunds and credits


class CardPayment(WeavrObject):
    """A payment with all its steps so far, starting with the authorisation."""

    id: Id
    profile_id: Id | None = None
    type: known.CardPaymentType
    card: PaymentCard
    merchant: PaymentMerchant
    display_amount: Money
    status: known.CardPaymentStatus
    related_card_payment_id: Id | None = None
    events: tuple[CardPaymentStep, ...]
    creation_timestamp: Instant
    last_updated_timestamp: Instant | None = None


class ManagedCardsCardPaymentEvent(WeavrEvent):
    """A card payment has a new step."""

    event_type: known.CardPaymentEventType
    card_payment: CardPayment
