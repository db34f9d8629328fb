"""Weavr's events while the ingress dies: they are sent until they are answered, and what came of them is looked at."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import aiohttp
from support.flow import INTEGRATION, JOB_TOPICS, Flow

from pipeline.contracts import SPECS, Record, Topic
from pipeline.sandbox import weavr_snippet
from pipeline.sandbox.weavr import Broken, Event, SendPlan, SigningKeys, mix
from pipeline.sandbox.weavr.ledger import retried
from pipeline.sandbox.weavr.sending import Post, poster

EventKind = Literal["event", "misfit", "burst"]
"""``event``: one event, as it should be. ``misfit``: one that fits no model. ``burst``: many at the same time."""

BURST: Final = 8
ACCEPTED: Final = 204
_CARDS: Final = "managed_cards/*"
_TOPIC: Final = Topic.EVENTS_MANAGED_CARDS
_MOST_RECORDS: Final = 2
"""One before the death, one of the retry."""
_PAUSE: Final = 0.2
"""Seconds between two tries; Weavr's ten would only make the tests slow."""

TOPICS: Final = [
    *JOB_TOPICS,
    # one partition will do: no order is looked at, and each costs the broker files
    *(replace(spec, partitions=1) for spec in SPECS.values() if spec.topic.startswith("card-events.")),
]
"""What a flow needs in which these events are sent."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One event and its answers, in the order of the tries; None where none came."""

    event: Event
    answers: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class EventRun:
    """What came of events while an ingress died; looked at when the audit log had caught up."""

    flow: Flow
    kind: EventKind
    deliveries: Sequence[SentEvent]

    async def records(self, delivery: SentEvent, topic: Topic = _TOPIC) -> list[Record]:
        """Return the records of a topic that hold an event's body."""
        return [record for record in await self.flow.records(topic) if record.value == delivery.event.body]


def add_weavr(flow: Flow) -> None:
    """Add Weavr's webhook to the settings; the ingress must not run yet."""
    with flow.config.open("a") as config:
        config.write(weavr_snippet(INTEGRATION, folder=flow.folder / "weavr").toml)


async def drive_events(flow: Flow, kind: EventKind) -> EventRun:
    """Send events as Weavr does, all at once, each until it gets a final answer."""
    events = _plan(kind).events(INTEGRATION, SigningKeys(_key(flow)), now_ms=time.time_ns() // 1_000_000)
    async with aiohttp.ClientSession() as session:
        post = poster(session, flow.events_url, timeout_seconds=30)
        return EventRun(flow, kind, await asyncio.gather(*(_delivered(post, event) for event in events)))


def _key(flow: Flow) -> bytes:
    return (flow.folder / "weavr" / f"{INTEGRATION}-weavr-key").read_bytes()


def _plan(kind: EventKind) -> SendPlan:
    seed = secrets.randbits(48)  # or the events of the case before would come again
    if kind == "misfit":
        return SendPlan(1, seed=seed, broken=1.0, broken_kinds=(Broken.MISFIT,))
    # with and without a call reference: either way a retry must be recognised
    return SendPlan(BURST if kind == "burst" else 1, mix({_CARDS: 1.0}), seed, call_refs=0.5)


async def _delivered(post: Post, event: Event) -> SentEvent:
    answers = [await post(event)]
    while retried(answers[-1]):
        await asyncio.sleep(_PAUSE)
        answers.append(await post(event))
    return SentEvent(event, answers)


async def check_events(run: EventRun, *, kept: bool) -> None:
    """Nothing is lost, and a record that is there twice is one event.

    Args:
        run: What came of them.
        kept: Whether the event was in its topic when the ingress died (of a burst: the one at which it died).
    """
    topic = Topic.EVENTS_QUARANTINE if run.kind == "misfit" else _TOPIC
    records = [await run.records(delivery, topic) for delivery in run.deliveries]
    for delivery, found in zip(run.deliveries, records, strict=True):
        assert delivery.answers[-1] == ACCEPTED
        assert {dict(record.headers)["ce_id"].decode() for record in found} == {delivery.event.ce_id}
    again = [delivery.answers != [ACCEPTED] for delivery in run.deliveries]
    often = [len(found) for found in records]
    if run.kind == "burst":
        # what was answered before the death is there once; what was under way may be there twice
        assert all(1 <= number <= 1 + sent_again for number, sent_again in zip(often, again, strict=True))
        assert not kept or _MOST_RECORDS in often
    else:
        assert again == [True]
        assert often == [_MOST_RECORDS if kept else 1]
    await _check_where_else(run)


async def _check_where_else(run: EventRun) -> None:
    """Check that an event is either in its topic or in quarantine, and that the audit log has a quarantine once."""
    digests = {hashlib.sha256(delivery.event.body).hexdigest() for delivery in run.deliveries}
    told = [line["event"]["action"] for line in run.flow.audit_lines() if _digest_of(line) in digests]
    other = _TOPIC if run.kind == "misfit" else Topic.EVENTS_QUARANTINE
    assert [await run.records(delivery, other) for delivery in run.deliveries] == [[] for _ in run.deliveries]
    assert told == (["webhook.quarantined"] if run.kind == "misfit" else [])


def _digest_of(line: dict[str, dict[str, dict[str, object]]]) -> object:
    return line["event"]["detail"].get("body_sha256")
