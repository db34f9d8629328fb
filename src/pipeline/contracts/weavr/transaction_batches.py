"""The batch of balance changes that belongs to a fee."""

from __future__ import annotations

from pydantic import StrictBool

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrObject
from pipeline.contracts.weavr.money import Money, ScaledAmount
from pipeline.contracts.weavr.references import InstrumentId, TypedId
from pipeline.contracts.weavr.wire import Amount, Currency, Id, Instant


class TransactionBatchIntercept(WeavrObject):
    """A system that may stop a batch."""

    provider: str
    state: known.TransactionBatchInterceptState | None = None
    denial_reason: str | None = None
    suspended_reason: str | None = None


class InstrumentFee(WeavrObject):
    """A fee that a participant pays."""

    amount: Amount | None = None
    fee_specific_type: str | None = None


class InstrumentParticipant(WeavrObject):
    """The changes of a batch to a card or an account, in its currency."""

    owner: TypedId
    fi_provider: str
    channel_provider: str
    original_amount: Money | None = None
    currency: Currency
    available_adjustment: Amount | None = None
    reserved_adjustment: Amount | None = None
    pending_adjustment: Amount | None = None
    available_sync: Amount | None = None
    delta_adjustment: Amount | None = None
    limit_adjustment: Amount | None = None
    fee: dict[str, InstrumentFee] | None = None
    system: dict[str, str] | None = None
    create: StrictBool | None = None
    upgrade: StrictBool | None = None
    activate: StrictBool | None = None
    block_type: known.BlockedDetailsType | None = None
    block_sub_type: known.BlockedDetailsSubType | None = None
    unblock_type: known.BlockedDetailsType | None = None
    unblock_sub_type: known.BlockedDetailsSubType | None = None
    destroy_type: known.DestroyType | None = None
    replacement_type: known.ReplacementType | None = None
    related: StrictBool | None = None
    force_state: StrictBool | None = None
    force_balance: StrictBool | None = None


class InstrumentBalances(WeavrObject):
    """Balances of a card or an account."""

    available_balance: Amount | None = None
    reserved_balance: Amount | None = None
    delta_balance: Amount | None = None
    pending_balance: Amount | None = None
    limit_balance: Amount | None = None


class RemainingAmounts(WeavrObject):
    """The amounts that can still be reversed."""

    available_remaining: Amount | None = None
    reserved_remaining: Amount | None = None
    pending_remaining: Amount | None = None
    fee_remaining: dict[str, str] | None = None


class BatchInstrument(WeavrObject):
    """A card or an account as a participant of a batch."""

    id: Id
    instrument_id: InstrumentId
    instrument: InstrumentParticipant
    state: known.TransactionBatchParticipantState
    conflict: known.InstrumentParticipantErrorType | None = None
    after: InstrumentBalances | None = None
    executed_timestamp: Instant | None = None
    remaining: RemainingAmounts | None = None
    after_compensation: InstrumentBalances | None = None
    compensated_timestamp: Instant | None = None
    treasury_pending: StrictBool | None = None


class ForexTrade(WeavrObject):
    """The exchanged amounts, each with its currency."""

    rate_id: Id
    provider: str
    source_currency: Currency
    source_amount: Amount | None = None
    source_system: Amount | None = None
    target_currency: Currency
    target_amount: Amount | None = None
    rate: ScaledAmount


class BatchForexTrade(WeavrObject):
    """A currency exchange as a participant of a batch."""

    id: Id
    forex_trade: ForexTrade
    state: known.TransactionBatchParticipantState | None = None
    conflict: known.ForexTradeParticipantErrorType | None = None
    executed_timestamp: Instant | None = None
    compensated_rate_id: Id | None = None
    source_system_compensation: Amount | None = None
    compensated_rate: ScaledAmount | None = None
    compensated_timestamp: Instant | None = None


class TransactionBatch(WeavrObject):
    """Changes to several balances that happen together."""

    id: Id
    transaction: TypedId
    related_batch_id: Id | None = None
    intercept: tuple[TransactionBatchIntercept, ...] | None = None
    instrument: dict[str, BatchInstrument]
    forex_trade: tuple[BatchForexTrade, ...] | None = None
    completed_timestamp: Instant | None = None
    state: known.TransactionBatchState
    conflict: known.TransactionBatchErrorType | None = None
    auth_session_id: Id | None = None
    note: str | None = None
