"""Reads the topics whose records wait for a person's decision: quarantines and dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

import click

from pipeline.contracts import Record, TopicName
from pipeline.errors import PipelineError, PoisonRecord, TransientError
from pipeline.kafka import KafkaSettings, read_topic


class Kept(Protocol):
    """An item decoded from one record of such a topic."""

    @property
    def id(self) -> str:
        """Equal for repeated records. On a command line, its first characters are enough."""
        ...


K = TypeVar("K", bound=Kept)


async def read_kept(
    cluster: KafkaSettings,
    topics: Sequence[TopicName],
    read: Callable[[Record], K],
    *,
    expected: Callable[[TopicName], bool] = lambda _: True,
) -> AsyncIterator[K]:
    """Yield the items of the topics, topic by topic, each id once. Only the ids stay in memory.

    Warns about records and topics that cannot be read.

    Args:
        cluster: The cluster of the topics.
        topics: The topics to read.
        read: Decodes a record; raises PoisonRecord.
        expected: Returns whether to warn if a topic cannot be read.

    Raises:
        TransientError: No topic can be read.
    """
    errors: list[TransientError] = []
    for topic in topics:
        try:
            async for kept in _read(cluster, topic, read):
                yield kept
        except TransientError as error:
            errors.append(error)
            if expected(topic):
                click.echo(f"warning: {error.message}", err=True)
    if topics and len(errors) == len(topics):
        raise errors[0]


async def _read(cluster: KafkaSettings, topic: TopicName, read: Callable[[Record], K]) -> AsyncIterator[K]:
    known: set[str] = set()
    async for record in read_topic(cluster, topic):
        try:
            kept = read(record)
        except PoisonRecord as error:
            position = f"{topic}, partition {record.partition}, offset {record.offset}"
            click.echo(f"warning: {position}: {error.message}", err=True)
            continue
        if kept.id not in known:
            known.add(kept.id)
            yield kept


def find_kept(items: Sequence[K], kept_id: str, unknown: Callable[[int], PipelineError]) -> K:
    """Return the only item whose id begins with ``kept_id``.

    Args:
        items: The items to search.
        kept_id: An id, or its first characters.
        unknown: Makes the error to raise if no item or several items match; gets their number.
    """
    found = [item for item in items if item.id.startswith(kept_id)]
    if len(found) != 1:
        raise unknown(len(found))
    return found[0]
