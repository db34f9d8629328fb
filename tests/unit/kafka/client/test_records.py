"""Batches that aiokafka cannot decode: every record before them is returned, then the watch names them."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from support.bus_bench import KAFKA

from pipeline.errors import FatalError
from pipeline.kafka import BatchUndecodable
from pipeline.kafka.client.records import DecodingWatch
from pipeline.kafka.settings import Names

_BASE, _ATTRIBUTES = slice(0, 8), 22
_GZIP, _SNAPPY, _LZ4, _ZSTD, _UNKNOWN = 1, 2, 3, 4, 5
RAW = TopicPartition("t", 3)


def batch(base: int, *values: bytes) -> bytearray:
    """Return a batch of records with one header each, beginning at an offset."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, 0, b"key", value, [("name", b"")])
    made = bytearray(builder.build())
    made[_BASE] = base.to_bytes(8, "big")
    return made


def packed(codec: int) -> bytearray:
    """Return a batch of two whose content claims to be compressed."""
    made = batch(2, b"bad", b"lost")
    made[_ATTRIBUTES] |= codec
    return made


def misnamed() -> bytearray:
    """Return a batch of two records, the first of which has a header name that is not text."""
    return batch(2, b"bad", b"lost").replace(b"name", b"\xff\xfe\xfd\xfc", 1)


class Consumer:
    """A consumer as the watch sees it, with one assigned partition."""

    def __init__(self) -> None:
        self.assignment = Assignment([RAW])
        self.assignment.state_value(RAW).reset_to(0)
        self._fetcher = SimpleNamespace(_records=OrderedDict())
        self.assigned = True
        self.watch = DecodingWatch(Names(KAFKA))
        self.watch.attach(self)

    async def position(self, raw: TopicPartition) -> int:
        if not self.assigned:
            raise kafka.IllegalStateError(f"{raw} is not assigned")
        offset: int = self.assignment.state_value(raw).position
        return offset

    def fetched(self, *batches: bytearray, crc: bool = False) -> FetchResult:
        """Let a fetch have brought batches; return what aiokafka keeps of it."""
        offset = self.assignment.state_value(RAW).position
        records = PartitionRecords(RAW, MemoryRecords(b"".join(batches)), [], offset, None, None, crc, 0)
        result = FetchResult(RAW, assignment=self.assignment, partition_records=records, backoff=0)
        self._fetcher._records[RAW] = result
        return result


@pytest.fixture
async def consumer() -> Consumer:
    return Consumer()


def offsets(records: list[Any]) -> list[int]:
    return [record.offset for record in records]


@pytest.mark.parametrize(
    ("bad", "crc", "why"),
    [
        (misnamed(), False, "UnicodeDecodeError"),
        (packed(_GZIP), False, "BadGzipFile"),
        (packed(_SNAPPY), False, "DecompressionError"),
        (packed(_LZ4), False, "DecompressionError"),
        (packed(_ZSTD), False, "DecompressionError"),
        (packed(_UNKNOWN), False, "Unknown compression codec 0x05"),
        (packed(_GZIP), True, f"Invalid CRC - {RAW}"),
    ],
)
async def test_records_before_a_bad_batch_are_returned_and_then_it_is_named(
    consumer: Consumer, bad: bytearray, *, crc: bool, why: str
) -> None:
    """Nothing behind it is returned, and the position stays before it, however often it is fetched."""
    result = consumer.fetched(batch(0, b"a", b"b"), bad, batch(4, b"c"), crc=crc)
    await consumer.watch.check()
    assert offsets(result.getall()) == [0, 1]
    for _ in range(2):
        with pytest.raises(BatchUndecodable) as caught:
            await consumer.watch.check()
        error = caught.value
        assert (error.topic, error.partition, error.offset, error.next_offset) == ("t", 3, 2, 4)
        assert why in error.why
        assert await consumer.position(RAW) == 2
        assert consumer.fetched(bad, crc=crc).getall() == []


async def test_what_to_do_is_said(consumer: Consumer) -> None:
    consumer.fetched(batch(0, b"a", b"b"), packed(_UNKNOWN)).getall()
    with pytest.raises(FatalError) as caught:
        await consumer.watch.check()
    assert caught.value.code == "kafka_batch_undecodable"
    command = "pipeline topics skip --topic t --partition 3 --offset 2 --group GROUP"
    for said in ("t, partition 3, offset 2:", "(Unknown compression codec 0x05)", command):
        assert said in caught.value.message


async def test_records_come_in_portions_up_to_the_bad_batch(consumer: Consumer) -> None:
    result = consumer.fetched(batch(0, b"a", b"b"), packed(_UNKNOWN))
    assert offsets(result.getall(max_records=1)) == [0]
    await consumer.watch.check()
    assert offsets(result.getall(max_records=5)) == [1]
    with pytest.raises(BatchUndecodable):
        await consumer.watch.check()


async def test_a_bad_record_in_the_middle_of_a_batch_is_named_itself(consumer: Consumer) -> None:
    bad = batch(0, b"a", b"b", b"c")
    second = bad.index(b"name", bad.index(b"name") + 1)
    bad[second : second + 4] = b"\xff\xfe\xfd\xfc"
    assert offsets(consumer.fetched(bad).getall()) == [0]
    with pytest.raises(BatchUndecodable) as caught:
        await consumer.watch.check()
    assert (caught.value.offset, caught.value.next_offset) == (1, 3)


async def test_a_consumer_that_went_elsewhere_is_not_stopped(consumer: Consumer) -> None:
    """After a seek, or without the partition, the batch is not where the consumer reads."""
    consumer.fetched(packed(_UNKNOWN)).getall()
    consumer.assignment.state_value(RAW).seek(9)
    await consumer.watch.check()
    consumer.assignment.state_value(RAW).seek(0)
    consumer.fetched(packed(_UNKNOWN)).getall()
    consumer.assigned = False
    await consumer.watch.check()


async def test_other_answers_to_a_fetch_are_left_alone(consumer: Consumer) -> None:
    error = FetchError(error=kafka.OffsetOutOfRangeError({RAW: 0}), backoff=0)
    consumer._fetcher._records[RAW] = error
    assert consumer._fetcher._records[RAW] is error


def test_another_build_of_aiokafka_is_refused() -> None:
    with pytest.raises(FatalError, match="aiokafka_changed"):
        DecodingWatch(Names(KAFKA)).attach(SimpleNamespace(_fetcher=SimpleNamespace()))
