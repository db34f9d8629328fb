"""Events of cards, except card payments."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money
from pipeline.contracts.weavr.references import InstrumentId, TypedId
from pipeline.contracts.weavr.wire import DEPRECATED, Amount, Country, Id, Instant


class MerchantData(WeavrObject):
    """Where a card was used."""

    merchant_name: str
    merchant_category_code: str
    merchant_id: Id
    merchant_description: str | None = None
    merchant_street: str | None = None
    merchant_city: str | None = None
    merchant_state: str | None = None
    merchant_postal_code: str | None = None
    merchant_country: str | None = None
    merchant_telephone: str | None = None
    merchant_url: str | None = Field(default=None, alias="merchantURL")
    merchant_name_other: str | None = None
    merchant_network_id: Id | None = None
    merchant_contact: str | None = None


class PrepaidModeDetails(WeavrObject):
    """The balance of a prepaid card."""

    available_balance: Money | None = None


class AvailableToSpend(WeavrObject):
    """The rest of one spending limit."""

    available_amount: Annotated[Amount | None, DEPRECATED] = None
    value: Money | None = None
    interval: known.SpendLimitInterval | None = None


class DebitModeDetails(WeavrObject):
    """The account of a debit card, and the rest of its spending limits."""

    parent_managed_account_id: Id | None = None
    available_to_spend: tuple[AvailableToSpend, ...] | None = None


class CardModeDetails(WeavrObject):
    """The amount available to spend, by the card's mode."""

    prepaid_mode_details: PrepaidModeDetails | None = None
    debit_mode_details: DebitModeDetails | None = None


class AuthForwardingDetails(WeavrObject):
    """Whether Weavr asked the integration to authorise the payment, and the answer."""

    auth_forwarding_triggered: StrictBool | None = None
    auth_forwarding_decision_outcome: known.AuthForwardingDefaultTimeoutDecision | None = None
    auth_forwarding_innovator_timed_out: StrictBool | None = None


class DigitalWalletDetails(WeavrObject):
    """The digital wallet of the payment."""

    digital_wallet_type: known.DigitalWalletType | None = None


class UserCurrencyTransactionDetails(WeavrObject):
    """The transaction in the user's currency. The rate is a decimal number as text."""

    user_transaction_amount: Money
    user_exchange_rate: str


class ChangedState(WeavrObject):
    """The state after the change."""

    state: known.InstrumentState | None = None
    blocked_reason: known.BlockedReason | None = None
    destroyed_reason: known.DestroyedReason | None = None


class CardState(WeavrObject):
    """The state of a card."""

    state: known.InstrumentState
    blocked_reason: known.BlockedReason | None = None
    destroyed_reason: known.DestroyedReason | None = None


class PhysicalReplacement(WeavrObject):
    """The replacement of a physical card, in the form of earlier versions."""

    replacement_reason: known.PhysicalReplacementReason | None = None
    replacement_id: Id | None = None


class DeliveryAddress(WeavrObject):
    """The delivery address of a physical card."""

    name: str
    surname: str
    address_line1: str
    address_line2: str | None = None
    city: str
    post_code: str
    state: str | None = None
    country: Country
    contact_number: str | None = None


class PhysicalCardDetails(WeavrObject):
    """The manufacturing and delivery of a physical card."""

    bulk_delivery: StrictBool | None = None
    product_reference: str | None = None
    carrier_type: str | None = None
    pending_activation: StrictBool
    pin_blocked: StrictBool | None = None
    manufacturing_state: known.ManufacturingState | None = None
    replacement: Annotated[PhysicalReplacement | None, DEPRECATED] = None
    delivery_address: DeliveryAddress | None = None
    delivery_method: known.DeliveryMethod | None = None
    delivery_tracking_code: str | None = None
    delivery_tracking_method: str | None = None
    delivery_tracking_url: str | None = None
    name_on_card_line2: Annotated[str | None, DEPRECATED] = None


class ManagedCardsStateChangeEvent(WeavrEvent):
    """A card was enabled, activated, blocked, unblocked or destroyed."""

    id: InstrumentId
    timestamp: Instant
    event_type: known.StateChangeEventType
    state: ChangedState | None = None
    card_type: known.CardType
    renewal_type: known.CardRenewalType


class ManagedCardsAuthorisationEvent(WeavrEvent):
    """The use of a card was authorised, declined or reversed, or its authorisation ended."""

    id: InstrumentId
    transaction_id: Id
    transaction_amount: Money
    transaction_timestamp: Instant
    source_amount: Money
    merchant_data: MerchantData
    # Weavr describes it as required and deprecated; events without it must stay readable
    merchant_name: Annotated[str | None, DEPRECATED] = None
    merchant_category_code: Annotated[str | None, DEPRECATED] = None
    merchant_id: Annotated[Id | None, DEPRECATED] = None
    approved: StrictBool | None = None
    available_balance: Money | None = None
    decline_reason: known.AuthDeclineReason | None = None
    auth_rule_failed_reason: known.AuthRuleChecksFailedReason | None = None
    authorisation_type: known.CardAuthorisationDetailsAuthorisationType
    authorisation_category: known.AuthorisationCategory | None = None
    related_authorisation_id: Annotated[Id | None, DEPRECATED] = None
    related_authorisation_ids: tuple[Id, ...] | None = None
    owner: TypedId
    cardholder_present: known.CardHolderPresent | None = None
    card_present: StrictBool | None = None
    details: CardModeDetails | None = None
    auth_code: str | None = None
    forex_padding: Money | None = None
    forex_fee: Money | None = None
    auth_forwarding_details: AuthForwardingDetails | None = None
    merchant_country_code: Annotated[str | None, DEPRECATED] = None
    digital_wallet_details: DigitalWalletDetails | None = None
    user_currency_transaction_details: UserCurrencyTransactionDetails | None = None
    transaction_type: known.CardAuthorisationDetailsTransactionType | None = None


class ManagedCardsAdjustmentEvent(WeavrEvent):
    """A card's balance was adjusted."""

    id: InstrumentId
    transaction_id: Id
    adjustment_type: known.CardAdjustmentDetailsAdjustmentType
    adjustment_amount: Money
    transaction_timestamp: Instant
    available_balance: Money | None = None
    owner: TypedId
    details: CardModeDetails | None = None


class ManagedCardsSettlementEvent(WeavrEvent):
    """The use of a card was settled, refunded or charged back. A settlement may be pending first, then completed."""

    id: InstrumentId
    transaction_id: Id
    settlement_type: known.CardMerchantSettlementMerchantTransactionType
    transaction_amount: Money
    transaction_timestamp: Instant
    source_amount: Money
    merchant_data: MerchantData
    merchant_name: Annotated[str | None, DEPRECATED] = None
    merchant_category_code: Annotated[str | None, DEPRECATED] = None
    merchant_id: Annotated[Id | None, DEPRECATED] = None
    details: CardModeDetails | None = None
    available_balance: Money | None = None
    related_authorisation_id: Annotated[Id | None, DEPRECATED] = None
    related_settlement_id: Annotated[Id | None, DEPRECATED] = None
    related_authorisation_ids: tuple[Id, ...] | None = None
    related_settlement_ids: tuple[Id, ...] | None = None
    owner: TypedId
    fee_amount: Money
    auth_code: str | None = None
    state: known.ManagedCardsSettlementEventSettlementState
    forex_fee: Money | None = None
    merchant_country_code: Annotated[str | None, DEPRECATED] = None
    digital_wallet_details: DigitalWalletDetails | None = None
    user_currency_transaction_details: UserCurrencyTransactionDetails | None = None


class ManagedCardsExpiryAndRenewalEvent(WeavrEvent):
    """A card is about to expire, has expired, or was renewed."""

    id: InstrumentId
    event_type: known.ManagedCardsExpiryAndRenewalEventType
    state: CardState
    card_type: known.CardType
    expiry_mmyy: str | None = None
    renewal_type: known.CardRenewalType
    renewal_timestamp: Instant | None = None


class ManagedCardsUpgradeToPhysicalEvent(WeavrEvent):
    """A virtual card became a physical one."""

    id: InstrumentId
    physical_card_details: PhysicalCardDetails
    upgraded_timestamp: Instant


class ManagedCardsReplacementEvent(WeavrEvent):
    """A card was replaced."""

    event_type: known.ManagedCardsReplacementEventType
    id: InstrumentId
    replacement_id: InstrumentId | None = None
    replacement_reason: known.ReplacementType
    replacement_timestamp: Instant
    user_id: Id | None = None
