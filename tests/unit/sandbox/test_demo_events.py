"""The second act, with a stand-in for the ingress and the subscribers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.contracts import Record
from pipeline.sandbox.demo import events as act
from pipeline.sandbox.demo import subscribing
from pipeline.sandbox.demo.plan import EVENTS
from pipeline.sandbox.demo.subscribing import Seen, Subscribers, noting
from pipeline.sandbox.weavr import Broken, Entry, Event, Pace, Sender, Totals, body_of, expected_id, weavr_kinds
from pipeline.subscriber import Subscriber
from pipeline.subscriber.testing import event_of


@dataclass
class Topics:
    """Where the ingress's stand-in puts events, and the subscribers' reads them."""

    seen: dict[str, Seen] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    stopped: bool = False

    def take(self, event: Event) -> int:
        """Answer as the ingress must, and handle the event at once."""
        if event.broken in {Broken.WRONG_KEY, Broken.CUT}:
            return 503
        if event.broken in {Broken.STALE, Broken.NO_SIGNATURE, Broken.MALFORMED}:
            return 401
        if event.broken:
            self.quarantined.append((event.ce_id, event.path))
            return 204
        seen = self.seen[event.category]
        if event.ce_id in seen.times:
            self.repeats[event.category] += 1
        else:
            seen.times[event.ce_id] += 1
            seen.positions[event.ce_id] = (0, len(seen.positions))
        return 204


class SmallSubscribers:
    """Has seen what the ingress took."""

    def __init__(self, topics: Topics, categories: list[str]) -> None:
        self._topics = topics
        topics.seen = {category: Seen() for category in categories}
        self.seen = topics.seen
        self._stop = asyncio.Event()

    async def run(self) -> None:
        await self._stop.wait()
        self._topics.stopped = True

    def stop(self) -> None:
        self._stop.set()

    def delivered(self) -> int:
        return sum(seen.times.total() for seen in self.seen.values())

    def repeats(self, category: str) -> int:
        return self._topics.repeats[category]

    async def quarantined(self) -> list[tuple[str, str]]:
        return self._topics.quarantined


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    """Few events, no broker, no HTTP."""
    made = Topics()

    async def send(
        url: str, events: Any, pace: Pace, record: Callable[[Entry], None], *, watch: Callable[[Totals], None]
    ) -> Totals:
        assert url == "http://h/webhooks/weavr/events"

        async def post(event: Event) -> int:
            return made.take(event)

        clock = iter(range(1_000_000))
        sender = Sender(post, pace, record, clock=lambda: float(next(clock)), sleep=lambda _: asyncio.sleep(0))
        totals = await sender.send(events)
        watch(totals)
        return totals

    monkeypatch.setattr(act, "EVENTS", replace(EVENTS, count=700, broken=0.04))
    monkeypatch.setattr(act, "send_events", send)
    monkeypatch.setattr(act, "Subscribers", lambda _servers, _name, categories: SmallSubscribers(made, categories))
    monkeypatch.setattr(act, "_POLL_SECONDS", 0.001)
    return made


@pytest.fixture
def key_files(tmp_path: Path) -> tuple[Path, Path]:
    files = tmp_path / "key", tmp_path / "next"
    for file in files:
        file.write_bytes(b"k")
    return files


async def test_the_books_balance_where_everything_is_as_it_must_be(
    topics: Topics, key_files: tuple[Path, Path]
) -> None:
    shares: list[float] = []
    outcome = await act.run_events("http://h", "broker:1", key_files, shares.append)
    assert outcome.findings == ()
    assert outcome.total.sent == outcome.total.accepted + outcome.total.refused
    assert outcome.total.delivered == 700 - 28
    assert (outcome.total.quarantined, outcome.total.refused) == (8, 20)
    assert outcome.total.repeats == outcome.sending["repeats"] != 0
    assert [row.category for row in outcome.rows[:2]] == ["auth-users", "authentication-factors"]
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)
    assert topics.stopped


async def test_what_is_not_delivered_in_time_is_a_finding(
    topics: Topics, key_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo stops waiting and reports it."""
    monkeypatch.setattr(act, "_DELIVERY_SECONDS", 0.02)
    monkeypatch.setattr(topics, "take", lambda _event: 204)
    outcome = await act.run_events("http://h", "broker:1", key_files, lambda _share: None)
    assert len(outcome.findings) == 20


class TestSubscribers:
    def subscribers(self) -> Subscribers:
        return Subscribers("broker:1", "events", sorted({kind.category for kind in weavr_kinds().values()}))

    async def test_there_is_one_per_category_and_all_are_run_and_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running: set[str] = set()

        async def run(self: Subscriber) -> None:
            running.add(self._group)
            await self._stopping.wait()
            running.remove(self._group)

        monkeypatch.setattr(Subscriber, "run", run)
        subscribers = self.subscribers()
        task = asyncio.create_task(subscribers.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(running) == 18
        assert "demo-managed-cards" in running
        subscribers.stop()
        await task
        assert running == set()

    def test_repeats_are_those_of_the_subscribers_own_metric(self) -> None:
        subscribers = self.subscribers()
        assert subscribers.repeats("login") == 0
        metric = subscribers._subscribers["login"]._metrics.subscriber_repeats
        metric.labels(stage="demo-login", topic="card-events.login").inc(3)
        assert (subscribers.repeats("login"), subscribers.repeats("send")) == (3, 0)

    async def test_both_quarantines_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def read(_settings: object, topic: str) -> AsyncIterator[Record]:
            headers = (("ce_id", topic.encode()), ("pipeline_path", b"/stepup/watch"))
            yield Record(topic, 0, 0, "events", b"", headers[: 1 + topic.count("stepup")], 0)

        monkeypatch.setattr(subscribing, "read_topic", read)
        assert await self.subscribers().quarantined() == [
            ("card-events.quarantine", ""),
            ("card-events.stepup.quarantine", "/stepup/watch"),
        ]

    @pytest.mark.parametrize(("reference", "odd"), [(b"ref-1", False), (b"ref-2", True)])
    async def test_events_are_noted_and_those_with_another_id_are_odd(self, reference: bytes, *, odd: bool) -> None:
        """The id follows from path, reference and body of the record."""
        made = event_of("weavr.login", body_of("/login/watch", Random(1)))  # noqa: S311 - test data
        headers = (
            ("pipeline_path", b"/login/watch"),
            ("call-ref", reference),
            ("published-timestamp", b"1"),
        )
        event = replace(
            made, id=expected_id("events", "/login/watch", "ref-1", made.raw, "1"), headers=headers, offset=7
        )
        seen = Seen()
        await noting(seen, "events")(event)
        assert (seen.times, seen.positions) == ({event.id: 1}, {event.id: (0, 7)})
        assert bool(seen.odd) == odd
        await noting(seen, "events")(replace(event, data={}))
        assert seen.times[event.id] == 2
        assert seen.odd[-1:] == [event.id]

    def test_nothing_was_delivered_before_anything_came(self) -> None:
        subscribers = self.subscribers()
        assert subscribers.delivered() == 0
        subscribers.seen["login"].times["id"] += 1
        assert subscribers.delivered() == 1
