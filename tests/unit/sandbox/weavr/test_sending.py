"""Connections, retries and repeats, against a webhook that gives the wanted answers, by a clock of the test."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from pipeline.sandbox.weavr import (
    Entry,
    Event,
    Pace,
    Sender,
    SendPlan,
    SigningKeys,
    Totals,
    integration_in,
    send_events,
)
from pipeline.sandbox.weavr.sending import poster, wall_clock

Answers = Callable[[Event, int], int | None]
"""Status by event and number of the try, from 0."""


class Webhook:
    """Answers at once; notes when each event came, and how many came at a time."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.now = 0.0
        self.came: defaultdict[int, list[float]] = defaultdict(list)
        self.order: list[Event] = []
        self.open = self.most = 0

    async def post(self, event: Event) -> int | None:
        tries = self.came[event.index]
        tries.append(self.now)
        self.order.append(event)
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        return self.answers(event, len(tries) - 1)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


async def sent(answers: Answers, *, pace: Pace | None = None, **plan: Any) -> tuple[Webhook, Totals, list[Entry]]:
    webhook, entries = Webhook(answers), list[Entry]()
    sender = Sender(webhook.post, pace or Pace(), entries.append, clock=lambda: webhook.now, sleep=webhook.sleep)
    events = SendPlan(**{"count": 1, **plan}).events("acme", SigningKeys(b"k"), now_ms=1_764_000_000_000)
    return webhook, await sender.send(events), entries


def always(status: int | None) -> Answers:
    return lambda _event, _number: status


async def test_everything_is_sent_once_where_it_is_accepted() -> None:
    webhook, totals, entries = await sent(always(204), count=300)
    assert sorted(webhook.came) == list(range(300))
    assert (totals.sent, totals.outcomes["accepted"], totals.requests) == (300, 300, 300)
    assert sorted(entry.index for entry in entries) == list(range(300))


@pytest.mark.parametrize("status", [503, 500, 408, 409, 425, None])
async def test_retries_come_after_10_60_360_2160_and_12960_seconds_and_then_no_more(status: int | None) -> None:
    """After 4 h 19 min Weavr gives up."""
    webhook, totals, _ = await sent(always(status))
    assert webhook.came[0] == [0.0, 10.0, 70.0, 430.0, 2590.0, 15_550.0]
    assert totals.outcomes == {"given up": 1}


async def test_retries_are_compressed() -> None:
    webhook, _, _ = await sent(always(503), pace=Pace(compress_retries=1000))
    assert webhook.came[0] == pytest.approx([0.0, 0.01, 0.07, 0.43, 2.59, 15.55])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429])
async def test_another_4xx_loses_the_event(status: int) -> None:
    """This includes 429."""
    webhook, totals, _ = await sent(always(status))
    assert webhook.came[0] == [0.0]
    assert totals.outcomes == {"refused": 1}


async def test_a_retry_stops_when_it_is_accepted_and_sends_the_same() -> None:
    webhook, totals, entries = await sent(lambda _event, number: 204 if number == 2 else 503)
    assert webhook.came[0] == [0.0, 10.0, 70.0]
    assert {(event.body, event.headers) for event in webhook.order} == {
        (webhook.order[0].body, webhook.order[0].headers)
    }
    assert [attempt.status for attempt in entries[0].deliveries[0]] == [503, 503, 204]
    assert totals.statuses == {503: 2, 204: 1}


async def test_a_retry_holds_nothing_up() -> None:
    """Others of its connection are sent meanwhile."""
    webhook, _, _ = await sent(
        lambda event, number: 503 if event.index == 0 and number == 0 else 204, count=100, pace=Pace(connections=1)
    )
    assert webhook.order[0].index == 0
    assert webhook.order[1].index != 0
    assert len(webhook.came[0]) == 2


async def test_events_of_one_entity_are_sent_one_after_the_other() -> None:
    """Over one connection; so no more are under way than there are connections."""
    webhook, _, _ = await sent(always(204), count=500, entities=3, pace=Pace(connections=4))
    assert 1 < webhook.most <= 4
    by_entity: defaultdict[str, list[int]] = defaultdict(list)
    for event in webhook.order:
        by_entity[event.entity].append(event.sequence)
    assert all(numbers == sorted(numbers) for numbers in by_entity.values())


async def test_repeats_are_sent_after_they_were_accepted_the_same_bytes_and_headers() -> None:
    webhook, totals, entries = await sent(always(204), count=400, repeats=0.1)
    twice = {entry.index for entry in entries if len(entry.deliveries) == 2}
    assert {index for index, came in webhook.came.items() if len(came) == 2} == twice
    assert totals.repeats == len(twice) > 20
    assert totals.sent == 400 + len(twice)
    for index in twice:
        first, again = [event for event in webhook.order if event.index == index]
        assert (first.headers, first.body) == (again.headers, again.body)


async def test_what_was_accepted_late_is_repeated_and_what_was_refused_is_not() -> None:
    _, totals, _ = await sent(lambda _event, number: 503 if number == 0 else 204, count=50, repeats=1.0)
    assert (totals.repeats, totals.outcomes) == (50, {"accepted": 100})
    _, totals, _ = await sent(always(401), count=50, repeats=1.0)
    assert (totals.repeats, totals.outcomes) == (0, {"refused": 50})


async def test_the_rate_is_kept() -> None:
    webhook, _, _ = await sent(always(204), count=101, pace=Pace(rate=50))
    assert webhook.now == pytest.approx(2.0)


async def test_a_connection_that_fails_unexpectedly_ends_the_sending() -> None:
    """Nothing waits for ever for the others."""

    def broken(event: Event, _number: int) -> int:
        raise RuntimeError(event.path)

    with pytest.RaisesGroup(RuntimeError):
        await sent(broken, count=500, pace=Pace(connections=1))


@pytest.fixture
async def server() -> Any:
    """A webhook over HTTP that notes path, headers and body, and answers 204."""
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(
            (request.raw_path, {name.lower(): value for name, value in request.headers.items()}, await request.read())
        )
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/{tail:.*}", note)
    async with TestServer(application) as running:
        yield running, seen


async def test_over_http_paths_headers_and_bodies_arrive_as_made(server: Any) -> None:
    running, seen = server
    plan = SendPlan(count=40, call_refs=1.0)
    events = list(plan.events("acme", SigningKeys(b"k"), now_ms=1_764_000_000_000))
    shown: list[int] = []
    url = str(running.make_url("/webhooks/weavr/acme/secret/"))
    totals = await send_events(
        url, iter(events), Pace(connections=3), lambda _entry: None, watch=lambda so_far: shown.append(so_far.events)
    )
    assert (totals.outcomes, shown[-1]) == ({"accepted": 40}, 40)
    by_path = {(f"/webhooks/weavr/acme/secret{event.path}", event.body): dict(event.headers) for event in events}
    for path, headers, body in seen:
        assert by_path[path, body].items() <= headers.items()


async def test_a_webhook_that_is_not_there_is_no_answer(server: Any) -> None:
    del server
    async with aiohttp.ClientSession() as session:
        post = poster(session, f"http://127.0.0.1:{unused_port()}", timeout_seconds=5)
        (event,) = SendPlan(count=1).events("acme", SigningKeys(b"k"), now_ms=1)
        assert await post(event) is None


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/webhooks/weavr/acme", "acme"),
        ("https://h/base/webhooks/weavr/acme/secret", "acme"),
        ("http://h/webhooks/weavr/", None),
        ("http://h/other", None),
    ],
)
def test_the_integration_is_part_of_the_url(url: str, name: str | None) -> None:
    assert integration_in(url) == name


def test_the_clock_does_not_go_back() -> None:
    clock = wall_clock()
    times: Iterator[float] = (clock() for _ in range(100))
    found = list(times)
    assert found == sorted(found)
