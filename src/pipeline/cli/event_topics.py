"""Topics as command lines name them: in our words, or as the cluster calls them."""

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
    """The topics to read.

    Args:
        named: As the command line names them: a topic, by its name in the cluster or without the cluster's prefix, or a
            category of Weavr's events; nothing for the topics of all configured sources of events that need no
            special right.
        settings: Which sources are configured, and what the cluster calls their topics.

    Attributes:
        topics: In the order of the table.

    Raises:
        UsageRefused: A name is neither a topic nor a category.
    """

    def __init__(self, named: Sequence[str], settings: Settings) -> None:
        self._named = bool(named)
        self.topics: list[TopicName] = (
            list(dict.fromkeys(topic_of(name, settings) for name in named)) if named else _configured_topics(settings)
        )

    def missing(self, topic: TopicName) -> None:
        """Warn of a topic that is not in the cluster; refuse one that was asked for by name.

        Raises:
            NotFound: It was asked for.
        """
        text = f"there is no topic {topic} in this cluster"
        if self._named:
            raise NotFound("topic_unknown", text)
        click.echo(f"warning: {text}", err=True)


def _configured_topics(settings: Settings) -> list[TopicName]:
    """Return the topics of configured sources, without step-ups and quarantines; Weavr's if none is configured."""
    of_sources: list[TopicName] = [source.topic for source in settings.webhooks.values() if source.events_topic]
    if of_sources and not settings.weavr:
        return of_sources
    return [*(topic for topic in Topic if topic.startswith(_EVENTS) and not SPECS[topic].sensitive), *of_sources]


def topic_of(name: str, settings: Settings) -> TopicName:
    """Return the topic that a command line names.

    Raises:
        UsageRefused: The name is neither a topic, here or in the cluster, nor a category.
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
        f"{name!r} is no topic: name one of `pipeline topics export`, {SOURCE_TOPICS}<source>, <group>"
        f"{DEAD_LETTER_ENDING}, or a category: {categories}",
    )


def logical_topic(name: str, settings: Settings) -> TopicName:
    """Return our name of a topic for the name that the cluster has, as `topics export` prints it; else the name."""
    if settings.kafka is None:
        return name
    try:
        return Names(settings.kafka).logical(name)
    except KeyError:
        return name
