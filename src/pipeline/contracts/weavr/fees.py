"""Events of fees."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money, ScaledAmount
from pipeline.contracts.weavr.references import InstrumentId
from pipeline.contracts.weavr.transaction_batches import TransactionBatch
from pipeline.contracts.weavr.wire import Id, Instant


class FeeSpec(WeavrObject):
    """The rule for computing a fee."""

    type: known.FeeSpecType | None = None
    flat_amount: tuple[Money, ...] | None = None
    percentage: ScaledAmount | None = None


class ChargeFee(WeavrObject):
    """A fee that was charged."""

    id: Id
    fee_type: known.FeeType
    fee_sub_type: str | None = None
    note: str | None = None
    source: InstrumentId
    fee_spec: FeeSpec
    batch: TransactionBatch | None = None
    profile_id: Id | None = None


class ChargeFeeEvent(WeavrEvent):
    """A fee was charged to a card or an account."""

    charge_fee: ChargeFee
    published_timestamp: Instant
    type: known.ChargeFeeEventType
