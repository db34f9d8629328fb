"""The walk of one job through PROCESS, UPLOAD and CONFIRM."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import Any

import pytest
from support.job_world import CARDS, JOB, World

from pipeline.contracts import Topic, first_values
from pipeline.errors import PoisonRecord, TransientError
from pipeline.jobs.announcements import IntegrationUnknown


def body_sent(world: World, call: int = 0) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(world.ecs.calls[call][2])
    return loaded


async def test_a_job_ends_in_an_uploaded_result_and_a_confirmed_callback() -> None:
    """All three stages leave their receipts, and ECS gets the counts."""
    world = World()
    await world.run(world.announce())

    (_, result), *others = world.objects.put
    assert others == []
    rows = list(csv.DictReader(result.decode().splitlines()))
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert body_sent(world) == {
        "success": True,
        "records_processed": 3,
        "records_failed": 1,
        "error_message": None,
    }
    assert world.ecs.calls[0][:2] == ("https://ecs.example/callback", str(JOB))
    (completed,) = world.bus.on(Topic.BATCH_COMPLETED)
    assert json.loads(completed.value)["told"] == "confirmed"


async def test_every_step_is_audited_once_and_nothing_secret_is_in_it() -> None:
    world = World()
    await world.run(world.announce())
    assert world.bus.audit() == [
        "job.announced",
        "job.started",
        "job.processed",
        "result.uploaded",
        "outcome.decided",
        "callback.confirmed",
    ]
    everything = b"".join(one.value for one in world.bus.published)
    assert b"planted" not in everything
    assert b"9999990000000006" not in everything


async def test_the_trace_context_goes_through_all_stages() -> None:
    world = World()
    await world.run(world.announce())
    traces = {first_values(one.headers).get("traceparent") for one in world.bus.published}
    assert traces == {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


async def test_after_the_confirmation_no_part_and_no_open_marker_is_left() -> None:
    """Card data goes with the confirmation; the receipts stay."""
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.run(record)
    left = sorted(world.memory.objects)
    assert not [key for key in left if "/parts/" in key or key.startswith(("open/", "purge/"))]
    names = [key.rpartition("/")[2] for key in left if "announcements" not in key]
    ended, *receipts = names
    assert ended == f"{JOB}.1.completed"
    assert receipts == [
        "confirmed.json",
        "job.json",
        "outcome.json",
        "processed.json",
        "1.json",
        "0001.json",
    ]


async def test_a_repeated_message_finds_the_receipt_and_repeats_only_the_publication() -> None:
    """Each stage, delivered again: same bytes published, nothing downloaded, put or posted a second time."""
    world = World()
    record = world.announce()
    await world.run(record)
    before = {topic: world.bus.on(topic)[-1] for topic in (Topic.BATCH_UPLOADED, Topic.BATCH_COMPLETED)}
    world.restart()
    await world.run(record)
    assert len(world.objects.opened) == 1
    assert len(world.objects.put) == 1
    assert len(world.ecs.calls) == 1
    for topic, first in before.items():
        assert all(one == first for one in world.bus.on(topic))


@pytest.mark.parametrize(
    "topic", [Topic.AUDIT_EVENTS, Topic.BATCH_PROCESSED, Topic.BATCH_UPLOADED, Topic.BATCH_COMPLETED]
)
async def test_a_lost_publication_is_made_up_for_by_the_next_delivery(topic: Topic) -> None:
    """Whichever publication fails first, delivering again ends in the same result and one confirmed callback."""
    world = World()
    record = world.announce()
    refused: list[Any] = []

    def fail_once(outgoing: Any) -> TransientError | None:
        if outgoing.topic is topic and not refused:
            refused.append(outgoing)
            return TransientError("broker_unavailable", "no acknowledgement")
        return None

    world.bus.fail = fail_once
    for _ in range(2):
        try:
            await world.run(record)
        except TransientError:
            world.restart()
    await world.run(record)
    assert [one.topic for one in refused] == [topic]
    assert len({data for _, data in world.objects.put}) == 1
    assert len({call[2:] for call in world.ecs.calls}) == 1
    assert json.loads(world.bus.on(Topic.BATCH_COMPLETED)[-1].value)["told"] == "confirmed"


async def test_an_integration_that_is_not_configured_is_a_temporary_condition() -> None:
    world = World()
    record = world.announce()
    headers = tuple((name, b"other" if name == "pipeline_integration" else value) for name, value in record.headers)
    with pytest.raises(IntegrationUnknown, match="integration_unknown: No integration 'other' is configured"):
        await world.process.arrive(type(record)(**{**_fields(record), "key": f"other/{JOB}", "headers": headers}))


async def test_a_value_that_is_no_announcement_is_poison_and_its_content_is_not_repeated() -> None:
    world = World()
    record = world.announce()
    bad = type(record)(**{**_fields(record), "value": b'{"job_guid": "9999990000000006"}'})
    with pytest.raises(PoisonRecord) as caught:
        await world.process.arrive(bad)
    assert "job_guid" in caught.value.message
    assert "99999900" not in str(caught.value)


async def test_a_stage_message_that_is_none_is_poison() -> None:
    world = World()
    await world.run(world.announce())
    record = world.records(Topic.BATCH_PROCESSED)[0]
    bad = type(record)(**{**_fields(record), "value": b"{}"})
    with pytest.raises(PoisonRecord, match="not a BatchProcessed: integration"):
        await world.upload.handle(bad, world.lease)


def _fields(record: Any) -> dict[str, Any]:
    return {one.name: getattr(record, one.name) for one in dataclasses.fields(record) if one.init}


async def test_the_result_keeps_the_input_columns_byte_for_byte() -> None:
    world = World()
    await world.run(world.announce())
    lines = world.objects.put[0][1].splitlines()
    assert [line.startswith(before) for line, before in zip(lines, CARDS.splitlines(), strict=True)] == [True] * 4


async def test_a_message_about_something_that_never_happened_is_poison_and_stops_nobody() -> None:
    """Another writer to the topics, by mistake or intent, cannot stop a worker with one record."""
    real, empty = World(), World()
    await real.run(real.announce())
    empty.announce()
    with pytest.raises(PoisonRecord, match="receipt_missing"):
        await empty.upload.handle(real.records(Topic.BATCH_PROCESSED)[0], empty.lease)
    with pytest.raises(PoisonRecord, match="receipt_missing"):
        await empty.confirm.handle(real.records(Topic.BATCH_UPLOADED)[0], empty.lease)
