"""The topics that a subscriber reads, and its dead-letter topics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pipeline.contracts import DEAD_LETTER_ENDING, SPECS, Topic, TopicName, TopicSpec

_EVENTS: Final = "card-events."
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_STEPUP: Final = ".stepup"
_STEPUP_TOPICS: Final = frozenset({Topic.EVENTS_STEPUP, Topic.EVENTS_STEPUP_QUARANTINE})
_RETENTION_MS: Final = SPECS[Topic.BATCH_DEAD_LETTER].retention_ms


def topic_of(name: str) -> TopicName:
    """Return the topic for a category (``managed-cards``) or for a topic's name.

    Raises:
        ValueError: No category or topic has this name.
    """
    if _EVENTS + name in SPECS:
        return _EVENTS + name
    if name in SPECS or ("." in name and not name.startswith(_EVENTS)):
        return name
    categories = ", ".join(sorted(topic.removeprefix(_EVENTS) for topic in SPECS if topic.startswith(_EVENTS)))
    raise ValueError(f"{name!r} is no category and no topic. Categories: {categories}")


def checked_group(group: str) -> str:
    """Return the group's name; raise ValueError if it cannot be part of a topic's name."""
    if not _GROUP.fullmatch(group):
        raise ValueError("a group's name has letters, digits, dots, dashes and underscores, at most 200")
    if group.endswith(_STEPUP) or group + DEAD_LETTER_ENDING in SPECS:
        raise ValueError(f"the group {group!r} would have the dead-letter topic of another: choose another name")
    return group


def dead_letter_topic(group: str, topic: TopicName) -> TopicName:
    """Return the dead-letter topic of a group for a topic. Step-up challenges have a separate one."""
    return f"{group}{_STEPUP if _guarded(topic) else ''}{DEAD_LETTER_ENDING}"


def _guarded(topic: TopicName) -> bool:
    """Return whether a topic may hold step-up challenges, as dead letters of other groups may too."""
    return topic in _STEPUP_TOPICS or topic.endswith(_STEPUP + DEAD_LETTER_ENDING)


def dead_letter_topics(group: str, topics: Sequence[TopicName] | None = None) -> list[TopicSpec]:
    """Return the dead-letter topics of a group. ``pipeline topics create`` must create them before the group starts.

    Args:
        group: The group's name.
        topics: The topics that the group reads; default: all.

    Raises:
        ValueError: The group's name is invalid.
    """
    checked_group(group)
    read = tuple(SPECS) if topics is None else topics
    specs = {dead_letter_topic(group, topic): _spec(group, topic) for topic in read}
    return [specs[name] for name in sorted(specs)]


def _spec(group: str, topic: TopicName) -> TopicSpec:
    name = dead_letter_topic(group, topic)
    if _guarded(topic):
        source = SPECS[Topic.EVENTS_STEPUP]
        about = f"Step-up challenges that {group} could not handle: guarded and kept as their topic is"
        return TopicSpec(name, 1, source.retention_ms, sensitive=True, dead_letter=None, about=about, key=source.key)
    about = f"Events that {group} could not handle, with the reason"
    return TopicSpec(name, 3, _RETENTION_MS, sensitive=True, dead_letter=None, about=about, key="as it was")
