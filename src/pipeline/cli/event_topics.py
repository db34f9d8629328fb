"""Topics on a command line: by the pipeline's name, or by the name in the cluster, which may have a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_view import NotFound
from pipeline.contracts import DEAD_LETTER_ENDING, SOURCE_TOPICS, SPECS, Topic, TopicName
from pipeline.kafka.settings import Names
from pipeline.settings import Settings

_EVENTS: Final = "card-events."


class Choice:
    """The topics that a command reads.

    Args:
        named: Names from the command line. Each is a topic, with or without the cluster's prefix, or a category of
            Weavr's events. Empty for the topics of all configured sources, except those that need special rights.
        settings: Hold the configured sources and the cluster's prefix.

    Attributes:
        topics: In the order of :class:`Topic`.

    Raises:
        UsageRefused: A name is neither a topic nor a category.
    """

    def __init__(self, named: Sequence[str], settings: Settings) -> None:
        self._named = bool(named)
        self.topics: list[TopicName] = (
            list(dict.fromkeys(topic_of(name, settings) for name in named)) if named else _configured_topics(settings)
        )

    def missing(self, topic: TopicName) -> None:
        """Warn that the cluster lacks a topic; refuse the command if the command line names that topic.

        Raises:
            NotFound: The command line names it.
        """
        text = f"this cluster has no topic {topic}"
        if self._named:
            raise NotFound("topic_unknown", text)
        click.echo(f"warning: {text}", err=True)


def _configured_topics(settings: Settings) -> list[TopicName]:
    """Return the topics of configured sources, or Weavr's if none is configured; never step-ups and quarantines."""
    of_sources: list[TopicName] = [source.topic for source in settings.webhooks.values() if source.events_topic]
    if of_sources and not settings.weavr:
        return of_sources
    return [*(topic for topic in Topic if topic.startswith(_EVENTS) and not SPECS[topic].sensitive), *of_sources]


def topic_of(name: str, settings: Settings) -> TopicName:
    """Return the topic that a command line names.

    Raises:
        UsageRefused: The name is neither a topic nor a category.
    """
    for one in dict.fromkeys((logical_topic(name, settings), name)):
        category = _EVENTS + one.replace("_", "-")
        if one in SPECS or one.startswith(SOURCE_TOPICS) or one.endswith(DEAD_LETTER_ENDING):
            return one
        if category in SPECS:
            return category
    categories = ", ".join(topic.removeprefix(_EVENTS) for topic in Topic if topic.startswith(_EVENTS))
    raise UsageRefused(
        "topic_name",
        f"{name!r} is not a topic: give one of `pipeline topics export`, {SOURCE_TOPICS}<source>, <group>"
        f"{DEAD_LETTER_ENDING}, or a category: {categories}",
    )


def logical_topic(name: str, settings: Settings) -> TopicName:
    """Return the pipeline's name of a topic for its name in the cluster; any other name as it is."""
    if settings.kafka is None:
        return name
    try:
        return Names(settings.kafka).logical(name)
    except KeyError:
        return name
