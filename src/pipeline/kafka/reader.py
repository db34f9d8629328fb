"""Reading topics without a group: bounded, from given offsets to the end as it was at the beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from pipeline.contracts import Record, TopicName
from pipeline.kafka._group import decoded
from pipeline.kafka._groupless import groupless
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.names import Names
from pipeline.kafka.settings import KafkaSettings

_AT_ONCE: Final = 500
_LOOKS: Final = 5
_LOOK_AGAIN: Final = 0.3
"""Seconds between two looks whether a topic is there: one that is made on first use takes a moment."""


class Bounds(NamedTuple):
    """The offsets that one partition holds: ``first`` up to, but not including, ``end``."""

    first: int
    end: int


async def missing_topics(settings: KafkaSettings, topics: Sequence[TopicName]) -> list[str]:
    """Return the cluster's names of those topics that are not there, or that may not be described.

    None is made by asking, even where the cluster makes topics on first use: it would have the wrong retention. Only of
    the embedded broker, which makes them no other way, they are made.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    names = [Names(settings).topic(topic) for topic in topics]
    async with groupless(settings, "Metadata") as consumer:
        cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001 - whether there is a controller
        missing = [name for name in names if name not in cluster.topics()]
        if cluster.controller is not None:
            return missing
        for _ in range(_LOOKS):
            missing = [name for name in names if not await _made(consumer, name)]
            if not missing:
                break
            await asyncio.sleep(_LOOK_AGAIN)
        return missing


async def _made(consumer: Any, name: str) -> bool:
    await consumer._client.add_topic(name)  # noqa: SLF001 - nothing public asks about one topic
    await consumer._client.force_metadata_update()  # noqa: SLF001
    return bool(consumer.partitions_for_topic(name))


async def topic_bounds(settings: KafkaSettings, topic: TopicName) -> dict[int, Bounds]:
    """Return what each partition of a topic holds now.

    Raises:
        BrokerUnavailable: No answer in time, or there is no such topic.
    """
    async with _reading(settings, topic) as consumer:
        return await _bounds(consumer, Names(settings).topic(topic))


async def read_back(settings: KafkaSettings, first: Record, *, most: int, milliseconds: int) -> AsyncIterator[Record]:
    """Yield the records of one partition that stand right before a given one, in offset order.

    Those that are older, by their timestamps, and at the beginning of the range are left out. Memory is bounded by one
    fetch.

    Args:
        settings: The cluster.
        first: The record where it ends; it is not yielded.
        most: Offsets to go back at most.
        milliseconds: How much older than ``first`` a record may be, as far as the broker can look that up.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    place = TopicPartition(Names(settings).topic(first.topic), first.partition)
    async with groupless(settings, first.topic) as consumer:
        consumer.assign([place])
        start = max((await consumer.beginning_offsets([place]))[place], first.offset - most)
        since = first.timestamp_ms - milliseconds
        found = (await consumer.offsets_for_times({place: since}))[place] if since > 0 else None
        # a broker that keeps no times answers anything: then the number alone bounds the range
        if found is not None and found.offset <= first.offset:
            start = max(start, found.offset)
        if start >= first.offset:
            return
        consumer.seek(place, start)
        async for raw in _until(consumer, {place: first.offset}, settings):
            key, headers = decoded(raw.key, raw.headers)
            yield Record(first.topic, raw.partition, raw.offset, key, raw.value or b"", headers, raw.timestamp)


async def read_topic(
    settings: KafkaSettings, topic: TopicName, *, ranges: Mapping[int, Bounds] | None = None
) -> AsyncIterator[Record]:
    """Yield the records of a topic, in offset order within each partition; memory is bounded by one fetch.

    Args:
        settings: The cluster.
        topic: What to read.
        ranges: Partitions and offsets to read; offsets that are gone are skipped. Default: all that is there now.

    Raises:
        BrokerUnavailable: No answer in time, or there is no such topic.
    """
    names = Names(settings)
    async with _reading(settings, topic) as consumer:
        there = await _bounds(consumer, names.topic(topic))
        ends = _wanted(names.topic(topic), there, ranges)
        for place in consumer.assignment():
            if place in ends:
                consumer.seek(place, ends[place].first)
            else:
                consumer.pause(place)
        async for raw in _until(consumer, {place: bounds.end for place, bounds in ends.items()}, settings):
            key, headers = decoded(raw.key, raw.headers)
            yield Record(topic, raw.partition, raw.offset, key, raw.value or b"", headers, raw.timestamp)


def _wanted(name: str, there: Mapping[int, Bounds], ranges: Mapping[int, Bounds] | None) -> dict[Any, Bounds]:
    asked = there if ranges is None else ranges
    cut = {
        number: Bounds(max(first, there[number].first), min(end, there[number].end))
        for number, (first, end) in asked.items()
        if number in there
    }
    return {TopicPartition(name, number): bounds for number, bounds in cut.items() if bounds.first < bounds.end}


async def _until(consumer: Any, ends: dict[Any, int], settings: KafkaSettings) -> AsyncIterator[Any]:
    """Yield raw records until each partition's position reaches its end (the last offsets may hold no record)."""
    while ends:
        got = await consumer.getmany(timeout_ms=round(settings.request_timeout_seconds * 1000), max_records=_AT_ONCE)
        before = dict(ends)
        for place, raws in got.items():
            for raw in raws:
                if raw.offset < before.get(place, 0):
                    yield raw
        for place, end in before.items():
            if await consumer.position(place) >= end:
                del ends[place]
                consumer.pause(place)
        if not got and len(before) == len(ends):
            raise BrokerUnavailable("broker_unavailable", "No records came within kafka.request_timeout_seconds.")


async def _bounds(consumer: Any, name: str) -> dict[int, Bounds]:
    places = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name) or ()]
    first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    return {place.partition: Bounds(first[place], end[place]) for place in sorted(places)}


def _reading(settings: KafkaSettings, topic: TopicName) -> AbstractAsyncContextManager[Any]:
    return groupless(settings, topic, Names(settings).topic(topic))
