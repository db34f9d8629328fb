"""Reads dead letters for the commands: chooses topics and letters, looks up marks, and shows letters masked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline.app import STAGES
from pipeline.cli.event_topics import logical_topic
from pipeline.cli.event_view import document, position
from pipeline.cli.job_view import NotFound
from pipeline.cli.kept_records import find_kept, read_kept
from pipeline.contracts import DEAD_LETTER_ENDING, SPECS, Record, Topic, TopicName
from pipeline.errors import PoisonRecord
from pipeline.kafka import StoredDeadLetter, read_dead_letter, topic_names
from pipeline.observability import mask_text
from pipeline.settings import Settings
from pipeline.storage import ObjectNotFound, ObjectStore
from pipeline.subscriber import dead_letter_topics
from pipeline.webhooks.quarantine import masked_announcement

_MARKS: Final = "dead-letters/"
_OF_STAGES: Final = (*STAGES, "chunks", "watch")
"""The pipeline's own groups; any other group is a subscriber's."""

What = Literal["replayed", "discarded"]


class Mark(BaseModel):
    """Contents of ``dead-letters/<id>.json``: a dead letter was replayed or discarded. Created once, after the fact."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    what: What
    at: AwareDatetime
    actor: str
    reason: str
    command: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter for dead letters; an empty attribute accepts all.

    Attributes:
        ids: Ids, or their first characters.
        groups: Groups that failed to handle the record.
        topics: Topics from which the record came.
        codes: Error codes.
        integration: The integration or source whose webhook received it.
        key: The record's key.
        since: Earliest time at which the letter was written.
        until: The letter was written before this time.
    """

    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    integration: str | None = None
    key: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def accepts(self, letter: StoredDeadLetter) -> bool:
        """Return whether the filter accepts a dead letter."""
        several = (
            (self.groups, letter.group),
            (self.topics, letter.record.topic),
            (self.codes, letter.code),
        )
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and all(not wanted or found in wanted for wanted, found in several)
            and self.integration in (None, letter.integration)
            and self.key in (None, letter.record.key)
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )

    @property
    def about(self) -> dict[str, JsonValue]:
        """The filter, for a command's receipt. Leaves out times, since ``2h`` means another time on a repetition."""
        return {
            "ids": [*self.ids],
            "groups": [*self.groups],
            "topics": [*self.topics],
            "codes": [*self.codes],
            "integration": self.integration,
            "key": self.key,
        }


async def _topics(settings: Settings, groups: Sequence[str]) -> list[TopicName]:
    """Return the dead-letter topics of the groups, or all dead-letter topics if no group is given.

    Raises:
        NotFound: A group has no dead-letter topic.
    """
    there = [name for name in await topic_names(settings.cluster) if name.endswith(DEAD_LETTER_ENDING)]
    own = [spec.topic for spec in settings.topics if spec.topic in (Topic.BATCH_DEAD_LETTER, Topic.AUDIT_DEAD_LETTER)]
    if not groups:
        return list(dict.fromkeys([*own, *there]))
    found: dict[TopicName, None] = {}
    for group in groups:
        of_group = own if group in _OF_STAGES else [name for name in _of_subscriber(group) if name in there]
        if not of_group:
            raise NotFound(
                "dead_letters_absent",
                f"this cluster has no dead-letter topic of the group {group!r}, or your Kafka user may not see it",
            )
        found |= dict.fromkeys(of_group)
    return list(found)


def _of_subscriber(group: str) -> list[TopicName]:
    try:
        return [spec.topic for spec in dead_letter_topics(group)]
    except ValueError:
        return []  # not a valid group name of a subscriber


async def read_letters(settings: Settings, wanted: Wanted) -> AsyncGenerator[StoredDeadLetter, None]:
    """Yield the wanted dead letters, topic by topic, in the order in which they were written to each partition."""
    wanted = replace(wanted, topics=tuple(logical_topic(name, settings) for name in wanted.topics))
    topics = await _topics(settings, wanted.groups)
    async for letter in read_kept(settings.cluster, topics, _read_own):
        if wanted.accepts(letter):
            yield letter


def _read_own(record: Record) -> StoredDeadLetter:
    """Decode a dead letter; raise PoisonRecord if it is not in the topic of its group.

    A replay runs with the operator's rights. A subscriber may write to its own dead-letter topic, so a letter there
    must not name another group, nor a topic to which only the pipeline may write.
    """
    letter = read_dead_letter(record)
    if record.topic not in _kept_in(letter.group, letter.record.topic):
        raise PoisonRecord("dead_letter_foreign", "The dead letter is not in the topic of the group that it names")
    return letter


def _kept_in(group: str, topic: TopicName) -> list[TopicName]:
    """Return the topics that may hold a group's dead letters from one topic."""
    own = SPECS[topic].dead_letter if topic in SPECS else None
    return [own] if own and group in _OF_STAGES else _of_subscriber(group)


async def find_letter(settings: Settings, item_id: str) -> StoredDeadLetter:
    """Return the only dead letter whose id begins with ``item_id``; raise NotFound otherwise."""
    found = [letter async for letter in read_letters(settings, Wanted(ids=(item_id,)))]
    return find_kept(found, item_id, lambda count: _unknown(item_id, count))


async def ensure_known(settings: Settings, item_ids: Sequence[str]) -> None:
    """Raise NotFound unless exactly one dead letter's id begins with each of the given ids."""
    if not item_ids:
        return
    ids = [letter.id async for letter in read_letters(settings, Wanted(ids=tuple(item_ids)))]
    for item_id in item_ids:
        count = sum(one.startswith(item_id) for one in ids)
        if count != 1:
            raise _unknown(item_id, count)


def _unknown(item_id: str, count: int) -> NotFound:
    what = f"{count} dead letters have" if count else "no dead letter has"
    return NotFound("dead_letter_unknown", f"{what} an id that begins with {item_id!r}")


def letter_document(letter: StoredDeadLetter, mark: Mark | None) -> dict[str, Any]:
    """Return a dead letter as JSON, with its value masked."""
    record = document(letter.record)
    if letter.value_missing:
        record["body"] = None
    elif letter.record.topic == Topic.BATCH_REQUESTED:
        record["body"] = masked_announcement(letter.record.value)
    kept_in = letter.position
    return letter_row(letter, mark.what if mark else "open") | {
        "kept_in": {"topic": kept_in.topic, "partition": kept_in.partition, "offset": kept_in.offset},
        "value_missing": letter.value_missing,
        "mark": mark.model_dump(mode="json") if mark else None,
        "record": record,
    }


def letter_row(letter: StoredDeadLetter, state: str) -> dict[str, Any]:
    """Return a dead letter as JSON for one line of a list, without its value."""
    return {
        "id": letter.id,
        "at": letter.at.isoformat(),
        "group": letter.group,
        **position(letter.record),
        "integration": letter.integration,
        "key": letter.record.key,
        "code": letter.code,
        "message": mask_text(letter.message),
        "attempts": letter.attempts,
        "state": state,
    }


def mark_key(letter_id: str) -> str:
    """Return the store key of a letter's mark."""
    return f"{_MARKS}{letter_id}.json"


async def marked_letters(objects: ObjectStore) -> frozenset[str]:
    """Return the ids of the letters that were replayed or discarded."""
    names = [one.key.removeprefix(_MARKS) async for one in objects.list(_MARKS)]
    return frozenset(name.removesuffix(".json") for name in names)


async def read_mark(objects: ObjectStore, letter_id: str) -> Mark | None:
    """Return the mark of a letter; None if it has none, or if the mark cannot be read."""
    try:
        return Mark.model_validate_json(await objects.get(mark_key(letter_id)))
    except (ObjectNotFound, ValidationError):
        return None
