"""Converts aiokafka's records, and finds the batch that aiokafka could not decode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, cast

from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import FetchResult

from pipeline.contracts import Record, TopicName
from pipeline.contracts.frozen import quick
from pipeline.errors import FatalError
from pipeline.kafka.errors import BatchUndecodable
from pipeline.kafka.settings import Names

RAW_KEY: Final = "kafka_key"
"""Header for the key's bytes if the key is not UTF-8. The record's ``key`` is then empty."""

_VALUE: Final = itemgetter(1)
_record: Final = quick(Record)


def record_of(raw: Any, topic: TopicName) -> Record:
    """Convert one of aiokafka's records."""
    key, headers = decoded(raw.key, raw.headers)
    return _record(topic, raw.partition, raw.offset, key, raw.value or b"", headers, raw.timestamp, 1, None)


def decoded(
    key: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """Return a record's key as text and its headers; a key that is not text becomes the header :data:`RAW_KEY`."""
    if None in map(_VALUE, headers):
        kept = tuple((name, value or b"") for name, value in headers)
    else:
        kept = cast("tuple[tuple[str, bytes], ...]", tuple(headers))
    try:
        return (key or b"").decode(), kept
    except UnicodeDecodeError:
        return "", (*kept, (RAW_KEY, key or b""))


class DecodingWatch:
    """Makes a consumer return every record before a batch that it cannot decode, and fail only then.

    aiokafka raises such an error while it collects a fetch. It drops the records collected so far, also those of other
    partitions, although their positions have moved, and the error names no offset. So this class wraps the fetches of
    one consumer; it touches no other consumer of the process. tests/unit/kafka/client/test_records.py fails when the
    wrapped parts of aiokafka change.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._consumer: Any = None
        self._found: dict[Any, BatchUndecodable] = {}

    def attach(self, consumer: Any) -> None:
        """Start to watch a started consumer that has fetched nothing yet.

        Raises:
            FatalError: This version of aiokafka is built differently.
        """
        if not isinstance(getattr(consumer._fetcher, "_records", None), OrderedDict):  # noqa: SLF001 - see the class
            raise FatalError("aiokafka_changed", "aiokafka's fetcher stores its fetches in another way than expected")
        consumer._fetcher._records = _Fetches(self)  # noqa: SLF001
        self._consumer = consumer

    def note(self, tp: Any, error: Exception, *, offset: int, next_offset: int | None) -> None:
        """Note that a batch could not be decoded."""
        why = str(error.args[0]) if isinstance(error, kafka.KafkaError) and error.args else type(error).__name__
        topic = self._names.logical(tp.topic)
        self._found[tp] = BatchUndecodable(topic, tp.partition, offset, next_offset, why)

    async def check(self) -> None:
        """Check whether a partition was read up to a batch that cannot be decoded.

        Raises:
            BatchUndecodable: A partition was.
        """
        while self._found:
            tp, error = self._found.popitem()
            try:
                reached = await self._consumer.position(tp) == error.offset
            except kafka.IllegalStateError:
                continue  # the partition was taken away
            if reached:
                raise error


class _Fetches(OrderedDict[Any, Any]):
    """The fetched data that a consumer has not returned yet, by partition."""

    def __init__(self, watch: DecodingWatch) -> None:
        super().__init__()
        self._watch = watch

    def __setitem__(self, tp: Any, fetched: Any) -> None:
        if isinstance(fetched, FetchResult):
            fetched._partition_records = _Records(tp, fetched._partition_records, self._watch)  # noqa: SLF001
        super().__setitem__(tp, fetched)


class _Records:
    """aiokafka's iterator over one partition's fetched records. It ends before a bad batch instead of raising."""

    def __init__(self, tp: Any, records: Any, watch: DecodingWatch) -> None:
        self._raw = tp
        self._records = records
        self._watch = watch
        self._batches = records._records = _Batches(records._records)  # noqa: SLF001

    @property
    def next_fetch_offset(self) -> int:
        """The offset after the last returned record, and after offsets without records."""
        offset: int = self._records.next_fetch_offset
        return offset

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._records
        except Exception as error:  # noqa: BLE001 - decoding may raise anything; `check` raises it with its position
            self._watch.note(self._raw, error, offset=self.next_fetch_offset, next_offset=self._batches.next_offset)


class _Batches:
    """The batches of one fetch of one partition.

    It remembers where the current batch ends, because errors do not say it.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.next_offset: int | None = None

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> Any:
        self.next_offset = None
        batch = self._batches.next_batch()
        self.next_offset = batch.next_offset
        return batch
