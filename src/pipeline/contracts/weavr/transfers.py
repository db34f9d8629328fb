"""Events of transfers within Weavr."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money
from pipeline.contracts.weavr.references import InstrumentId, TypedId
from pipeline.contracts.weavr.wire import Id, Instant, Tag


class Transfer(WeavrObject):
    """Money moved between accounts and cards of one identity."""

    id: TypedId
    profile_id: Id
    tag: Tag | None = None
    source: InstrumentId
    destination: InstrumentId
    destination_amount: Money
    state: known.TransferState
    creation_timestamp: Instant
    conflict: known.CreateTransferConflictErrorCode | None = None
    scheduled_timestamp: Instant | None = None
    cancellation_reason: str | None = None
    execution_timestamp: Instant | None = None


class TransferEvent(WeavrEvent):
    """A transfer has another state."""

    event_type: known.TransferEventTransferEventType
    transfer: Transfer
    published_timestamp: Instant


class Send(WeavrObject):
    """Money sent to an account or card of another identity."""

    beneficiary_id: Id | None = None
    cancellation_reason: str | None = None
    challenge_exemption_reason: known.ChallengeExemptionReason | None = None
    conflict: known.CreateSendConflictErrorCode | None = None
    creation_timestamp: Instant
    description: str | None = None
    destination: InstrumentId
    destination_amount: Money
    destination_fee: Money | None = None
    execution_timestamp: Instant | None = None
    id: TypedId
    profile_id: Id
    scheduled_timestamp: Instant | None = None
    source: InstrumentId
    source_fee: Money | None = None
    state: known.SendState
    tag: Tag | None = None
    transaction_amount: Money


class SendEvent(WeavrEvent):
    """A send has another state."""

    event_type: known.SendEventSendEventType
    send: Send
    published_timestamp: Instant
