"""The topics that a command on events reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_view import NotFound
from pipeline.contracts import DEAD_LETTER_ENDING, SOURCE_TOPICS, SPECS, Topic, TopicName
from pipeline.settings import Settings

_EVENTS: Final = "card-events."


class Choice:
    """The topics to read.

    Args:
        named: As the command line names them: a topic, or a category of Weavr's events; nothing for the topics of all
            configured sources of events that need no special right.
        settings: Which sources are configured.

    Attributes:
        topics: In the order of the table.

    Raises:
        UsageRefused: A name is neither a topic nor a category.
    """

    def __init__(self, named: Sequence[str], settings: Settings) -> None:
        self._named = bool(named)
        self.topics: list[TopicName] = (
            list(dict.fromkeys(_topic(name) for name in named)) if named else _configured_topics(settings)
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


def _topic(name: str) -> TopicName:
    category = _EVENTS + name.replace("_", "-")
    if name in SPECS or name.startswith(SOURCE_TOPICS) or name.endswith(DEAD_LETTER_ENDING):
        return name
    if category in SPECS:
        return category
    categories = ", ".join(topic.removeprefix(_EVENTS) for topic in Topic if topic.startswith(_EVENTS))
    raise UsageRefused(
        "topic_name",
        f"{name!r} is no topic: name one of `pipeline topics export`, {SOURCE_TOPICS}<source>, <group>"
        f"{DEAD_LETTER_ENDING}, or a category: {categories}",
    )
