"""Several topics are read as one, in the order in which their records arrived."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from support.fake_partitions import FakePartitions

from pipeline.contracts import Record
from pipeline.kafka import BrokerUnavailable, KafkaSettings, Partition, Point
from pipeline.kafka.reader import Merge, read_back, tail

SETTINGS = KafkaSettings(bootstrap_servers="unused:1")


def _fail(topic: str) -> None:
    raise AssertionError(topic)


async def read(cluster: FakePartitions, *topics: str, since: Point = "earliest") -> list[str]:
    records = tail(SETTINGS, topics, since=since, follow=False, missing=_fail, connect=cluster.connect)
    return [record.value.decode() async for record in records]


async def test_topics_and_partitions_are_merged_by_the_times_of_their_records() -> None:
    cluster = FakePartitions()
    cluster.topic("a", partitions=2)
    cluster.topic("b")
    cluster.put("a", 10, 40)
    cluster.put("a", 20, 50, partition=1)
    cluster.put("b", 30, 60)
    assert await read(cluster, "a", "b") == ["a/0/0", "a/1/0", "b/0/0", "a/0/1", "a/1/1", "b/0/1"]


async def test_a_partition_keeps_its_order_whatever_its_times_say() -> None:
    cluster = FakePartitions()
    cluster.topic("a")
    cluster.topic("b")
    cluster.put("a", 50, 10)
    cluster.put("b", 20)
    assert await read(cluster, "a", "b") == ["b/0/0", "a/0/0", "a/0/1"]


async def test_the_order_does_not_depend_on_how_much_one_fetch_brings() -> None:
    """Partitions that have ended are fetched from no more."""
    cluster = FakePartitions(at_once=1)
    cluster.topic("a")
    cluster.topic("b")
    cluster.put("a", 10, 20, 30)
    cluster.put("b", 40)
    assert await read(cluster, "a", "b") == ["a/0/0", "a/0/1", "a/0/2", "b/0/0"]
    a, b = Partition("a", 0), Partition("b", 0)
    assert cluster.fetched == [[a, b], [a], [a]]


async def test_reading_begins_at_a_time() -> None:
    cluster = FakePartitions()
    cluster.topic("a", first=7)
    cluster.put("a", 1_000, 2_000, 3_000)
    assert await read(cluster, "a", since=datetime.fromtimestamp(2, UTC)) == ["a/0/8", "a/0/9"]


async def test_nothing_later_than_the_time_reads_as_nothing() -> None:
    cluster = FakePartitions()
    cluster.topic("a")
    cluster.put("a", 1_000)
    assert await read(cluster, "a", since=datetime.fromtimestamp(2, UTC)) == []


async def test_offsets_without_records_at_the_end_are_passed_over() -> None:
    cluster = FakePartitions()
    cluster.topic("a")
    cluster.put("a", 10)
    cluster.end_with_gap("a", 2)
    assert await read(cluster, "a") == ["a/0/0"]


async def test_records_that_do_not_come_are_an_unavailable_broker() -> None:
    cluster = FakePartitions()
    cluster.topic("a")
    cluster.hang("a")
    with pytest.raises(BrokerUnavailable):
        await read(cluster, "a")


async def test_a_topic_that_is_not_there_is_reported() -> None:
    cluster = FakePartitions()
    cluster.topic("a")
    cluster.put("a", 10)
    reported: list[str] = []
    records = tail(
        SETTINGS, ["gone", "a"], since="earliest", follow=False, missing=reported.append, connect=cluster.connect
    )
    assert [record.offset async for record in records] == [0]
    assert reported == ["gone"]


async def test_no_topic_at_all_reads_as_nothing() -> None:
    reported: list[str] = []
    records = tail(
        SETTINGS, ["gone"], since="latest", follow=True, missing=reported.append, connect=FakePartitions().connect
    )
    assert [record async for record in records] == []


async def test_following_goes_on_with_what_comes() -> None:
    """Also in partitions that were empty, or at their end, at the beginning."""
    cluster = FakePartitions()
    cluster.topic("a", partitions=2)
    cluster.put("a", 10)
    cluster.put_later("a", 30)
    cluster.put_later("a", 20, partition=1)
    records = tail(SETTINGS, ["a"], since="earliest", follow=True, missing=_fail, connect=cluster.connect)
    seen: list[str] = []
    async with aclosing(records):
        async for record in records:
            seen.append(record.value.decode())
            if len(seen) == 3:
                break
    assert seen == ["a/0/0", "a/1/0", "a/0/1"]


async def test_following_from_now_leaves_out_what_is_there() -> None:
    cluster = FakePartitions()
    cluster.topic("a")
    cluster.put("a", 10)
    cluster.put_later("a", 20)
    records = tail(SETTINGS, ["a"], since="latest", follow=True, missing=_fail, connect=cluster.connect)
    async with aclosing(records):
        assert (await anext(records)).offset == 1


def test_of_a_partition_that_many_records_wait_of_no_more_is_fetched() -> None:
    """Of those that few wait of it is: to fetch of the hungry alone would be slow."""
    first, second, third = (Partition("a", number) for number in range(3))
    merge = Merge([first, second, third])
    merge.put(first, [Record("a", 0, offset, "k", b"", (), 10) for offset in range(500)])
    merge.put(second, [Record("a", 1, 0, "k", b"", (), 20)])
    assert (merge.empty, merge.short) == ([third], [second, third])
    merge.finish(third)
    assert merge.pop() is not None
    assert merge.short == [first, second]


def test_a_merge_says_nothing_before_it_knows_the_next_record_of_each_partition() -> None:
    first, second = Partition("a", 0), Partition("a", 1)
    merge = Merge([first, second])
    merge.put(first, [Record("a", 0, 0, "k", b"", (), 10)])
    assert (merge.pop(), merge.empty) == (None, [second])
    merge.finish(second)
    record = merge.pop()
    assert record is not None
    assert (record.offset, merge.empty) == (0, [first])


@pytest.mark.parametrize(("offset", "most"), [(0, 100), (7, 0)])
async def test_what_has_nothing_before_it_is_read_back_without_a_broker(offset: int, most: int) -> None:
    nowhere = SETTINGS
    first = Record("card-events.fees", 0, offset, "k", b"", (), 1_000)
    assert [one async for one in read_back(nowhere, first, most=most, milliseconds=1_000)] == []
