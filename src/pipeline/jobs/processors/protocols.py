"""The interfaces of processors. Public API, see docs/reference/processors.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class JobContext:
    """The job of a card. It is the same after every restart."""

    integration: str
    job_guid: UUID
    merchant_guid: UUID
    partner_reference_id: str
    external_location_ids: tuple[str, ...]
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Card:
    """One record of the input file, every column as text.

    Attributes:
        record: Record number, 1 for the first after the header.
        number: The card number, exactly as in the configured column.
        columns: All columns by header name (``column_1`` ... without a header), dropped columns included.
        idempotency_key: Derived from (integration, job, record number): the same on every restart. Send it with every
            request that has an effect, because up to ``chunks_in_flight`` chunks may be processed twice after a crash.
    """

    record: int
    number: str = field(repr=False)
    columns: Mapping[str, str] = field(repr=False)
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class CardGroup:
    """Several cards of one chunk, for one call.

    Attributes:
        cards: In the order of the file.
        idempotency_key: Of the call as a whole. After a restart and on another worker the same cards get the same key.
            Cards that are sent again because an answer about them asked for it have another one.
    """

    cards: tuple[Card, ...]
    idempotency_key: str


@dataclass(frozen=True, slots=True, init=False)
class CardResult:
    """The result of one card.

    Attributes:
        status: ``ok`` or ``failed``; goes to the status column.
        message: Text for people, without card data.
        columns: Values of the processor's own result columns (see ``result_columns``).
    """

    status: Literal["ok", "failed"] = "ok"
    message: str = ""
    columns: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __init__(
        self, status: Literal["ok", "failed"] = "ok", message: str = "", columns: Mapping[str, str] | None = None
    ) -> None:
        _set_status(self, status)
        _set_message(self, message)
        _set_columns(self, {} if columns is None else columns)


# the generated constructor would set each field by a slower call, and a processor makes one result per card
_set_status, _set_message, _set_columns = (vars(CardResult)[name].__set__ for name in ("status", "message", "columns"))


class CardError(Exception):
    """Raise this to fail one card. The result file contains the message, so keep card data out of it."""


class TransientCardError(Exception):
    """Raise this if another try may help. The engine tries this card (columnar: this batch) a few more times.

    Then the card fails. The result file contains the message of the last try, so keep card data out of it.

    Attributes:
        retry_after: The pause that the service asks for, in seconds; None for the engine's own backoff.
        unavailable: Whether the service is unavailable for all cards. After five such errors in a row, the engine sends
            no further cards, and their jobs wait. One card every 30 s tests whether the service is back.
        slow_down: Whether the service asks for fewer requests, or cannot keep up with them. The worker then sends
            fewer cards a second to it, and none for ``retry_after`` seconds.
        maybe_done: Whether the service may have done its work, although the result is not known; also if it is
            ``unavailable``. Then several cards of one call are sent again under the same idempotency key.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        unavailable: bool = False,
        slow_down: bool = False,
        maybe_done: bool = False,
    ) -> None:
        """Store the message and the attributes."""
        super().__init__(message)
        self.retry_after = retry_after
        self.unavailable = unavailable
        self.slow_down = slow_down
        self.maybe_done = maybe_done


@runtime_checkable
class RowProcessor(Protocol):
    """Processes one card at a time; up to ``concurrency`` cards of a chunk at once."""

    async def process(self, card: Card, context: JobContext, /) -> CardResult:
        """Return the result of the card.

        Raises:
            CardError: Only this card fails.
            TransientCardError: This card is tried again, a bounded number of times, then fails.
            PermanentError: The job fails.
        """
        ...


@runtime_checkable
class GroupProcessor(Protocol):
    """Processes several cards per call; up to ``concurrency`` calls of a chunk run at once.

    Attributes:
        cards_per_call: Most cards of a call. With 1, the engine calls ``process`` of :class:`RowProcessor` instead.
    """

    cards_per_call: int

    async def process_cards(
        self, group: CardGroup, context: JobContext, /
    ) -> Sequence[CardResult | CardError | TransientCardError]:
        """Return one result or error for each card, in the order of the cards.

        Cards with a TransientCardError are tried again together, a bounded number of times, then fail.

        Raises:
            CardError: All cards fail.
            TransientCardError: All cards are tried again.
            PermanentError: The job fails.
        """
        ...


@runtime_checkable
class ColumnarProcessor(Protocol):
    """Processes one chunk at a time, in a worker thread: plain code, no await."""

    def process_batch(self, batch: pa.RecordBatch, context: JobContext, /) -> pa.RecordBatch:
        """Return a batch with the same rows, in order: ``status`` (``ok``/``failed``), ``message``, own result columns.

        The input has all columns of the file, as strings under their header names, and the columns ``__record``
        (int64), ``__card_number`` and ``__idempotency_key``. If the processor has an attribute ``input_columns``, the
        input has only the columns named there, and ``__record``. All columns of the result are strings, which may be
        dictionary-encoded.

        Raises:
            TransientCardError: The whole batch is tried again, a bounded number of times, then its cards fail.
            PermanentError: The job fails.
        """
        ...


@runtime_checkable
class Opens(Protocol):
    """Optional: a processor with connections to open before the first card and to close after the last."""

    async def open(self) -> None:
        """Called once per worker process, before the first card."""
        ...

    async def close(self) -> None:
        """Called once, after the last card."""
        ...


Processor = RowProcessor | GroupProcessor | ColumnarProcessor
"""A row-wise or columnar processor.

Optional attributes: ``result_columns`` names its own result columns. ``version`` (default "1") keeps a new version from
continuing the parts of an old one. ``input_columns`` names the columns that a columnar processor reads.
"""
