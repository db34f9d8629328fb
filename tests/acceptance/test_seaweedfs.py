"""The whole flow with SeaweedFS, a real server that enforces what a URL says: as ECS's file store and as job store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import EVERYTHING, INTEGRATION, Flow, running_flow
from support.flow_checks import notified_body
from support.partner_bucket import PartnerBucket
from support.seaweedfs import SeaweedFS, bucket_of, store_table

from pipeline.sandbox import CardFile, Job, JobRequest, ResultRules, expected_counts, settings_snippet, verify_result
from pipeline.storage import open_store
from pipeline.storage.settings import S3Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class World:
    """A flow whose files all lie on SeaweedFS."""

    flow: Flow
    bucket: PartnerBucket
    store: S3Settings

    async def send(self, *, empty_crc: bool, **cards: int) -> Job:
        """Announce a job with URLs of SeaweedFS."""
        sandbox, flow = self.flow.sandbox, self.flow
        url = f"{flow.webhook_url.removesuffix(INTEGRATION)}weed"
        job = await sandbox.ecs.create(JobRequest(announce=False, webhook_url=url, cards=CardFile(**cards)))
        source = sandbox.store.disk.get(job.input_key)
        assert source
        await self.bucket.put(f"{job.guid}/input.csv", source.path.read_bytes())
        # the sandbox's ECS looks for results in its own store
        placeholder = sandbox.store.disk.new_path()
        placeholder.touch()
        await sandbox.store.disk.adopt(job.result_key, placeholder, modified=job.created_at)
        urls = {
            "input_file_url": self.bucket.download_url(f"{job.guid}/input.csv"),
            "result_upload_url": self.bucket.upload_url(f"{job.guid}/output.csv", empty_crc=empty_crc),
        }
        announcement = await sandbox.ecs.announce(job.guid, override=urls)
        assert announcement.accepted
        return job

    async def result(self, job: Job) -> bytes | None:
        """Return the result file at ECS."""
        return await self.bucket.get(f"{job.guid}/output.csv")

    async def stored(self, prefix: str) -> list[str]:
        """Return the keys of the job store below a prefix."""
        store = open_store(self.store)
        try:
            return [info.key async for info in store.list(prefix)]
        finally:
            await store.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    embedded_broker: Broker, seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("flow")
    store = bucket_of(seaweedfs, folder.name)
    bucket = PartnerBucket(seaweedfs, "ecs-card-batches")
    async with running_flow(embedded_broker, folder, start=(), store=store_table(store)) as flow:
        hosts = settings_snippet(
            flow.sandbox,
            "weed",
            folder=folder / "secrets",
            tables={"hosts": {"input": [bucket.host], "result": [bucket.host]}, "limits": {"chunk_records": 100}},
        )
        flow.config.write_text(flow.config.read_text() + hosts.toml)
        await asyncio.gather(*(flow.start(name) for name in EVERYTHING))
        yield World(flow, bucket, store)
        await flow.stop()


async def test_urls_without_a_checksum(world: World, tmp_path: Path) -> None:
    """The job completes; its parts are gone from the bucket, its receipts stay, the audit log verifies."""
    job = await world.send(empty_crc=False, records=1000, seed=21)
    await world.flow.notified(job)
    await world.flow.caught_up()
    result = await world.result(job)
    assert result
    assert job.ledger
    file = tmp_path / "result.csv"
    file.write_bytes(result)
    assert verify_result(file, job.ledger, ResultRules()) == []
    ok, failed = expected_counts(job.ledger)
    body = notified_body(world.flow, job)
    assert (body["success"], body["records_processed"], body["records_failed"]) == (True, ok + failed, failed)

    keys = await world.stored(f"jobs/weed/{job.guid}/")
    assert [key for key in keys if "/parts/" in key] == []
    assert any(key.endswith("/outcome.json") for key in keys)
    assert await world.stored("open/") == []
    code, said = await world.flow.cli("job", "show", str(job.guid), "--json")
    assert (code, json.loads(said)["state"]) == (0, "confirmed")
    code, said = await world.flow.cli("audit", "verify", "--json")
    assert (code, json.loads(said)["ok"]) == (0, True)
    assert json.loads(said)["events"] >= 7


async def test_urls_with_the_checksum_of_an_empty_body(world: World) -> None:
    """The server enforces it: the job fails at once, and ECS learns what to change about its URLs."""
    job = await world.send(empty_crc=True, records=200, seed=22)
    await world.flow.notified(job)
    body = notified_body(world.flow, job)
    assert body["success"] is False
    assert "x-amz-checksum-crc32" in body["error_message"]
    assert "empty body" in body["error_message"]
    assert body["records_processed"] == 200
    assert await world.result(job) is None
    code, said = await world.flow.cli("job", "show", str(job.guid), "--json")
    assert (code, json.loads(said)["outcome"]["reason"]) == (0, "upload_checksum_refused")
