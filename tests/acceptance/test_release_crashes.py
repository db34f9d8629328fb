"""kill -9 during a release from quarantine: a second release publishes the same event; subscribers handle it once."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.crashes import assert_died
from support.event_crashes import add_weavr
from support.flow import INTEGRATION, Flow, running_flow
from support.flow_checks import assert_audit_intact
from support.flow_process import FlowProcess
from support.prefork import Prefork

from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, EventHeaders, OutgoingRecord, Topic
from pipeline.kafka import KafkaPublisher
from pipeline.sandbox.weavr import Event, SendPlan, SigningKeys, mix

pytestmark = pytest.mark.asyncio(loop_scope="module")

POINTS: Final = {
    "before:publish.events": 1,
    "after:publish.events": 2,
    "before:publish.audit.events": 2,
    "after:publish.audit.events": 2,
}
"""Where the command dies, and how many records of the event there are once it was run again."""


@dataclass(frozen=True)
class World:
    """A flow with an event in quarantine for each point; it fits by now."""

    flow: Flow
    prefork: Prefork
    events: dict[str, Event]

    async def killed(self, event: Event, point: str) -> None:
        process, _ = self._release(event, self.prefork.crashing(point))
        await assert_died(process, point)

    async def release(self, event: Event) -> tuple[int, str]:
        process, out = self._release(event, self.prefork)
        return await process.ended(), out.read_text()

    def _release(self, event: Event, launch: Prefork) -> tuple[FlowProcess, Path]:
        base = self.flow.folder / f"release-{time.monotonic_ns()}"
        argv = ["--config", str(self.flow.config), "quarantine", "release", event.ce_id, "--json"]
        return FlowProcess("release", argv, base, launch=launch), base.with_suffix(".out")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("release")
    async with running_flow(embedded_broker, folder, start=(), launch=prefork) as flow:
        add_weavr(flow)
        await flow.start("audit")
        plan = SendPlan(len(POINTS), mix({"managed_cards/authorisations": 1.0}), call_refs=0.5)
        keys = SigningKeys(b"nobody looks at it")
        events = dict(zip(POINTS, plan.events(INTEGRATION, keys, now_ms=time.time_ns() // 1_000_000), strict=True))
        async with KafkaPublisher(flow.kafka) as publisher:
            for event in events.values():
                await publisher.publish(_quarantined(event))
        yield World(flow, prefork, events)
        await flow.stop()


def _quarantined(event: Event) -> OutgoingRecord:
    """Return the record that an ingress made whose model was narrower than today's."""
    headers = EventHeaders(
        id=event.ce_id,
        source=f"/webhooks/weavr/{INTEGRATION}",
        type="webhook.quarantined",
        subject=INTEGRATION,
        time=datetime.now(UTC),
        partition_key=INTEGRATION,
    )
    sent = tuple((name, value.encode()) for name, value in event.headers if name != "content-type")
    extra = (
        (INTEGRATION_HEADER, INTEGRATION.encode()),
        (PATH_HEADER, event.path.encode()),
        *sent,
        ("pipeline_quarantine_reasons", b"merchant:object"),
    )
    return OutgoingRecord(Topic.EVENTS_QUARANTINE, INTEGRATION, event.body, headers.encode(extra))


@pytest.mark.parametrize("point", POINTS)
async def test_a_release_that_was_killed_is_repeated(point: str, world: World) -> None:
    """The event is in its topic under the id of Weavr's own repeat, and once in the audit log."""
    event, flow = world.events[point], world.flow
    await world.killed(event, point)
    code, printed = await world.release(event)
    assert (code, json.loads(printed)["released"]) == (0, True)
    records = [record for record in await flow.records(Topic.EVENTS_MANAGED_CARDS) if record.value == event.body]
    assert [dict(record.headers)["ce_id"].decode() for record in records] == [event.ce_id] * POINTS[point]
    await flow.caught_up(groups=["audit"])
    await assert_audit_intact(flow)
    told = [line["event"] for line in flow.audit_lines() if line["event"]["detail"].get("event_id") == event.ce_id]
    assert [one["action"] for one in told] == ["quarantine.released"]
