"""A job whose integration was removed ends when it is back: late, and without the topic. Real processes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest
from support.brokers import Broker, make_topics
from support.flow import INTEGRATION, JOB_TOPICS, running_flow
from support.flow_checks import assert_one_outcome, notified_body
from support.members import until
from support.prefork import Prefork

from pipeline.sandbox import CardFile

EXPIRES_SECONDS = 20.0
WORKERS = ("process", "upload", "confirm")
"""Without the audit log: it would notice that its topic is another one."""


@pytest.mark.parametrize("kind", ["embedded_broker", "apache_kafka"])
async def test_a_job_of_a_removed_integration_ends_when_it_is_back(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, prefork: Prefork
) -> None:
    """By then its URLs have expired, and its topic has lost its record: the store alone knows the job."""
    broker = cast("Broker", request.getfixturevalue(kind))
    async with running_flow(broker, tmp_path, start=(), launch=prefork) as flow:
        configured, removed = flow.config, tmp_path / "removed.toml"
        removed.write_text(configured.read_text().replace(f"[ecs.{INTEGRATION}", "[ecs.another"))
        # the embedded broker makes topics only when the workers read them, so the ingress is not ready before
        ingress = asyncio.create_task(flow.start("ingress"))
        await asyncio.sleep(0)
        flow.config = removed
        await asyncio.gather(ingress, *(flow.start(name) for name in WORKERS))
        sent = time.monotonic()
        job = await flow.send(cards=CardFile(records=20), expires_in_seconds=EXPIRES_SECONDS)
        due = flow.store / "due"
        # PROCESS and the deadline watch each wait for the settings
        await until(lambda: len(list(due.rglob("*.integration_unknown"))) == 2, seconds=60)
        await flow.caught_up(groups=["process", "watch"])
        await flow.stop()
        await asyncio.sleep(max(0.0, sent + EXPIRES_SECONDS - time.monotonic()))
        assert flow.callbacks(job) == []

        prefix = flow.kafka.topic_prefix
        configured.write_text(configured.read_text().replace(prefix, f"{prefix}new."))
        flow.config = configured
        flow.kafka = flow.kafka.model_copy(update={"topic_prefix": f"{prefix}new.", "group_prefix": f"{prefix}new."})
        if broker.kind == "apache":
            await make_topics(flow.kafka, JOB_TOPICS)
        await asyncio.gather(*(flow.start(name) for name in ("ingress", *WORKERS)))
        await flow.notified(job)
        await flow.caught_up(groups=["process", "watch", "upload", "confirm"])
        assert "before its URLs expired" in notified_body(flow, job)["error_message"]
        await assert_one_outcome(flow, job, "failed")
        assert not list(due.rglob("*.integration_unknown"))
        await flow.stop()
