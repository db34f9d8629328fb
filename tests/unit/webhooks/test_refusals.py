from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.kafka import BrokerUnavailable
from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks.refusals import RefusalCounts, RefusalLog
from pipeline.webhooks.testing import serving

START = datetime(2026, 1, 21, tzinfo=UTC)


class _Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=60)
        return self.now


def _counts(publisher: MemoryPublisher, *, interval: float = 60.0, deadline: float = 1.0) -> RefusalCounts:
    return RefusalCounts(publisher, clock=_Clock(), instance="pod-1", interval=interval, deadline=deadline)


def _details(publisher: MemoryPublisher) -> list[dict[str, Any]]:
    return [json.loads(record.value)["detail"] for record in publisher.on(Topic.AUDIT_EVENTS)]


async def test_one_event_per_interval_holds_all_counts() -> None:
    publisher = MemoryPublisher()
    counts = _counts(publisher)
    for reason in ("not_verified", "not_verified", "header_missing"):
        counts.count("acme", reason)
    counts.count("other", "not_verified")
    await counts.flush()
    (record,) = publisher.published
    event = json.loads(record.value)
    assert (record.key, event["action"], event["actor"]) == ("-", "webhook.refusals", "ingress")
    assert event["detail"] == {
        "instance": "pod-1",
        "since": "2026-01-21T00:01:00+00:00",
        "until": "2026-01-21T00:02:00+00:00",
        "counts": {"acme/header_missing": 1, "acme/not_verified": 2, "other/not_verified": 1},
    }


async def test_without_refusals_there_is_no_event() -> None:
    publisher = MemoryPublisher()
    counts = _counts(publisher)
    await counts.flush()
    counts.count("acme", "not_verified")
    await counts.flush()
    await counts.flush()
    assert len(publisher.published) == 1


@pytest.mark.parametrize("hangs", [False, True])
async def test_event_that_could_not_be_sent_is_sent_again_as_it_was(*, hangs: bool) -> None:
    away = True

    async def broker(_: OutgoingRecord) -> None:
        if away and hangs:
            await asyncio.Event().wait()
        if away:
            raise BrokerUnavailable("broker_unavailable", "gone")

    publisher = MemoryPublisher(broker)
    counts = _counts(publisher, deadline=0.01)
    counts.count("acme", "not_verified")
    await counts.flush()
    counts.count("acme", "not_verified")
    counts.count("acme", "not_verified")
    await counts.flush()
    assert publisher.published == []
    away = False
    await counts.flush()
    assert [detail["counts"]["acme/not_verified"] for detail in _details(publisher)] == [1, 2]
    assert len({json.loads(record.value)["id"] for record in publisher.published}) == 2


async def test_counts_are_published_by_themselves() -> None:
    told = asyncio.Event()

    async def publish_all(_: OutgoingRecord) -> None:
        told.set()

    publisher = MemoryPublisher(publish_all)
    counts = _counts(publisher, interval=0.01)
    counts.count("acme", "not_verified")
    task = asyncio.create_task(counts.run())
    async with asyncio.timeout(5):
        await told.wait()
    task.cancel()
    await asyncio.wait([task])
    assert _details(publisher)[0]["counts"] == {"acme/not_verified": 1}


def _lines(logs: Sequence[Mapping[str, Any]], event: str) -> list[tuple[Any, ...]]:
    return [(line["log_level"], line["reason"], line.get("not_logged")) for line in logs if line["event"] == event]


async def test_a_flood_of_refusals_is_a_few_lines_and_a_number() -> None:
    """The first ten of each kind have a line each; the others are counted, at the latest when the process stops."""
    with capture_logs() as logs:
        async with serving(MemoryPublisher()) as here, aiohttp.ClientSession() as client:
            url = f"{here.server.url}/webhooks/ecs/acme"
            for _ in range(50):
                async with client.post(url, data=b"{}", headers={"Content-Type": "application/json"}) as response:
                    assert response.status == 401
            async with client.get(url) as response:
                assert response.status == 405
    assert Counter(_lines(logs, "webhook_refused")) == {
        ("warning", "header_missing", None): 10,
        ("warning", "method_not_allowed", None): 1,
    }
    assert _lines(logs, "webhook_refusals") == [("warning", "header_missing", 40)]


async def test_after_a_minute_refusals_have_lines_again() -> None:
    """The same holds for answers to our own faults, which are logged as errors."""
    refusals = RefusalLog()
    with capture_logs() as logs:
        for _ in range(11):
            refusals.refused("acme", 503, "broker_unavailable", "192.0.2.1", {"event_id": "e"})
        refusals.flush()
        refusals.refused("acme", 503, "broker_unavailable", "192.0.2.1", {"event_id": "e"})
        refusals.flush()
    assert _lines(logs, "webhook_refused") == [("error", "broker_unavailable", None)] * 11
    assert _lines(logs, "webhook_refusals") == [("warning", "broker_unavailable", 1)]
