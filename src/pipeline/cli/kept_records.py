"""Reading topics that keep records for a person to decide about: quarantines and dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

import click

from pipeline.contracts import Record, TopicName
from pipeline.errors import PipelineError, PoisonRecord, TransientError
from pipeline.kafka import KafkaSettings, read_topic


class Kept(Protocol):
    """Something that a topic keeps."""

    @property
    def id(self) -> str:
        """Equal for records that say the same; commands name it, or its beginning."""
        ...


K = TypeVar("K", bound=Kept)


async def read_kept(
    cluster: KafkaSettings,
    topics: Sequence[TopicName],
    read: Callable[[Record], K],
    *,
    expected: Callable[[TopicName], bool] = lambda _: True,
) -> AsyncIterator[K]:
    """Yield what the topics keep, topic by topic, each id once. Memory is bounded, except for the ids.

    It warns of records that cannot be read, and of topics that cannot be read.

    Args:
        cluster: Where the topics are.
        topics: What to read.
        read: Returns what a record holds; raises PoisonRecord.
        expected: Whether to warn if a topic cannot be read.

    Raises:
        TransientError: None of the topics can be read.
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
    """Return the one item whose id begins with the given one.

    Args:
        items: Where to look.
        kept_id: The beginning of an id.
        unknown: Makes the error to raise if there is none or more than one, from their number.
    """
    found = [item for item in items if item.id.startswith(kept_id)]
    if len(found) != 1:
        raise unknown(len(found))
    return found[0]
