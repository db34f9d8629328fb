"""Batches of others that the client cannot read, and those that it must not pass over."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from structlog.testing import capture_logs

from pipeline.kafka import _unreadable
from pipeline.kafka._unreadable import ReadableRecords

_BASE, _ATTRIBUTES = slice(0, 8), 22
_GZIP, _SNAPPY, _ZSTD = 1, 2, 4


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
    """Return a batch of two, the first of which has a header name that is no text."""
    return batch(2, b"bad", b"lost").replace(b"name", b"\xff\xfe\xfd\xfc", 1)


def records(*batches: bytearray, crc: bool = False) -> Any:
    """Return what the client iterates over."""
    joined = MemoryRecords(b"".join(batches))
    return ReadableRecords(TopicPartition("t", 3), joined, [], 0, None, None, crc, 0)


@pytest.mark.parametrize("bad", [misnamed(), packed(_GZIP), packed(_SNAPPY), packed(_ZSTD)])
def test_what_stands_before_and_behind_an_unreadable_batch_is_read(bad: bytearray) -> None:
    with capture_logs() as lines:
        found = records(batch(0, b"a", b"b"), bad, batch(4, b"c"))
        assert [(one.offset, one.value) for one in found] == [(0, b"a"), (1, b"b"), (4, b"c")]
    [line] = lines
    assert (line["event"], line["topic"], line["partition"], line["first"], line["next"]) == (
        "batch_passed_over",
        "t",
        3,
        2,
        4,
    )


def test_behind_an_unreadable_last_batch_the_next_fetch_begins() -> None:
    """Else it would be fetched for ever."""
    found = records(batch(0, b"a", b"b"), misnamed())
    assert [one.offset for one in found] == [0, 1]
    assert found.next_fetch_offset == 4


def test_a_wrong_checksum_is_damage_and_not_passed_over() -> None:
    with pytest.raises(CorruptRecordException):
        list(records(misnamed(), crc=True))


def test_every_consumer_uses_it() -> None:
    _unreadable.install()
    assert fetcher.PartitionRecords is ReadableRecords
