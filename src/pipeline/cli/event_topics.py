"""Which topics a command on events reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_view import NotFound
from pipeline.contracts import DEAD_LETTER_ENDING, SOURCE_TOPICS, SPECS, Topic, TopicName

_EVENTS: Final = "card-events."


class Choice:
    """The topics to read.

    Args:
        named: As the command line names them: a topic, a category of Weavr's events, or nothing for all that are open.
        sources: Topics of configured sources.

    Attributes:
        topics: In the order of the table.

    Raises:
        UsageRefused: A name means nothing.
    """

    def __init__(self, named: Sequence[str], sources: Sequence[TopicName] = ()) -> None:
        self._named = bool(named)
        self.topics: list[TopicName] = (
            list(dict.fromkeys(_topic(name) for name in named)) if named else [*_open_topics(), *sources]
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


def _open_topics() -> list[TopicName]:
    """Return the topics of events that no special right is needed for: without step-ups and quarantines."""
    return [topic for topic in Topic if topic.startswith(_EVENTS) and not SPECS[topic].sensitive]


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
