"""What is in quarantine, whose it is, and what may be shown of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click
from pydantic import JsonValue

from pipeline.app import open_sources
from pipeline.cli.event_body import masked_body
from pipeline.cli.job_view import NotFound
from pipeline.contracts import SPECS, Record, Topic
from pipeline.contracts.strict_json import Finding
from pipeline.contracts.weavr import BY_PATH
from pipeline.errors import PoisonRecord, TransientError
from pipeline.kafka import read_topic
from pipeline.settings import Settings
from pipeline.webhooks.quarantine import Quarantined, findings_now, read_quarantined, shown
from pipeline.webhooks.webhook import Source

_KINDS: Final[dict[Topic, str]] = {
    Topic.BATCH_QUARANTINE: "ecs",
    Topic.EVENTS_QUARANTINE: "weavr",
    Topic.EVENTS_STEPUP_QUARANTINE: "weavr",
    Topic.WEBHOOK_QUARANTINE: "webhooks",
}
"""Every quarantine topic, with the tables whose sources lead there."""


class Sources:
    """The sources of the present settings, found by what stands in a quarantined record."""

    def __init__(self, settings: Settings) -> None:
        self._found = {
            (source.kind if source.kind in {"ecs", "weavr"} else "webhooks", source.integration): source
            for source in open_sources(settings, secrets=False)
        }

    def of(self, item: Quarantined) -> Source | None:
        """Return the source that an item came in by, or None where the settings do not know it any more."""
        return self._found.get((_KINDS[Topic(item.place.topic)], item.integration))

    def findings(self, item: Quarantined) -> tuple[Finding, ...]:
        """Return what is wrong with an item by the present settings."""
        source = self.of(item)
        return findings_now(item, source.provider) if source else ()

    def now(self, item: Quarantined) -> str:
        """Return ``valid``, ``invalid``, or ``integration unknown``."""
        if self.of(item) is None:
            return "integration unknown"
        return "invalid" if self.findings(item) else "valid"


def lateness(item: Quarantined, sources: Sources, now: datetime) -> str | None:
    """Return how late the release of a fitting item is, or None: a step-up may be of no use any more."""
    source = sources.of(item)
    spec = SPECS.get(source.provider.identify(item.delivery).topic) if source else None
    age = now - item.at
    if spec is None or age <= timedelta(milliseconds=spec.retention_ms):
        return None
    return f"received {age.total_seconds() / 3600:.1f} h ago, longer than {spec.topic} keeps a record"


async def read_all(settings: Settings) -> list[Quarantined]:
    """Return what is in quarantine, each delivery once, where its first record stands; in the order of the topics.

    A topic that cannot be read is warned of, unless no source leads there.

    Raises:
        TransientError: None can be read.
    """
    found = await asyncio.gather(*(_listed(settings, topic) for topic in _KINDS), return_exceptions=True)
    items: list[Quarantined] = []
    errors: list[TransientError] = []
    for topic, one in zip(_KINDS, found, strict=True):
        if isinstance(one, TransientError):
            errors.append(one)
            _warn(settings, topic, one)
        elif isinstance(one, BaseException):
            raise one
        else:
            items += one
    if len(errors) == len(_KINDS):
        raise errors[0]
    return items


async def each(settings: Settings, integration: str) -> AsyncIterator[Quarantined]:
    """Yield what an integration has in quarantine, as it came, each delivery once. Memory is bounded, but for ids.

    Topics that cannot be read, and errors, are as in :func:`read_all`.
    """
    errors: list[TransientError] = []
    for topic in _KINDS:
        try:
            async for item in _read(settings, topic):
                if item.integration == integration:
                    yield item
        except TransientError as error:
            errors.append(error)
            _warn(settings, topic, error)
    if len(errors) == len(_KINDS):
        raise errors[0]


def _warn(settings: Settings, topic: Topic, error: TransientError) -> None:
    if getattr(settings, _KINDS[topic]):
        click.echo(f"warning: {error.message}", err=True)


async def _listed(settings: Settings, topic: Topic) -> list[Quarantined]:
    return [item async for item in _read(settings, topic)]


async def _read(settings: Settings, topic: Topic) -> AsyncIterator[Quarantined]:
    known: set[str] = set()
    async for record in read_topic(settings.cluster, topic):
        try:
            item = read_quarantined(record)
        except PoisonRecord as error:
            place = f"{topic}, partition {record.partition}, offset {record.offset}"
            click.echo(f"warning: {place}: {error.message}", err=True)
            continue
        if item.id not in known:
            known.add(item.id)
            yield item


def find(items: Sequence[Quarantined], item_id: str) -> Quarantined:
    """Return the one item whose id begins so.

    Raises:
        NotFound: There is none, or more than one.
    """
    found = [item for item in items if item.id.startswith(item_id)]
    if len(found) != 1:
        what = "nothing" if not found else f"{len(found)} deliveries"
        raise NotFound("quarantine_unknown", f"{what} with an id that begins with {item_id!r} in quarantine")
    return found[0]


def in_order(items: Sequence[Quarantined]) -> list[Quarantined]:
    """Return items in the order of their topics: all of an integration stand in one partition, as they came."""
    return sorted(items, key=lambda item: (item.place.topic, item.place.partition, item.place.offset))


def listed(item: Quarantined, sources: Sources) -> dict[str, Any]:
    """Return the line of an item."""
    return {
        "id": item.id,
        "integration": item.integration,
        "topic": item.place.topic,
        "at": item.at.isoformat(),
        "reasons": list(item.reasons),
        "now": sources.now(item),
    }


def document(item: Quarantined, sources: Sources) -> dict[str, JsonValue]:
    """Return everything that may be shown of an item."""
    view = shown(item) | {"topic": item.place.topic, "event_path": item.delivery.path or None}
    kind = BY_PATH.get(item.delivery.path) if _KINDS[Topic(item.place.topic)] == "weavr" else None
    if kind is not None:
        place = item.place
        typed = (("ce_type", kind.type.encode()),)
        view["body"] = masked_body(Record(place.topic, place.partition, place.offset, "", item.delivery.body, typed, 0))
    return view | {"now": sources.now(item), "findings": [*told(sources.findings(item))]}


def told(findings: Sequence[Finding]) -> list[JsonValue]:
    """Return findings as JSON."""
    return [{"field": one.field, "rule": one.rule, "remedy": one.remedy} for one in findings]
