"""``examples/external.toml`` with values for servers that are not the sandbox's: Apache Kafka, SeaweedFS, another ECS.

Only lines marked CHANGE are changed. What the example does not have, http and addresses of this machine, comes from the
environment.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import tomllib
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from support.brokers import Broker
from support.flow_process import FlowProcess, run_cli
from support.partner_bucket import PartnerBucket
from support.paths import ROOT
from support.seaweedfs import SeaweedFS

from pipeline.jobs.part_encryption import new_part_key

EXAMPLE: Final = ROOT / "examples" / "external.toml"
SECRET: Final = "webhook-secret-of-this-test-0123456789"
TOKEN: Final = "callback-token-of-this-test"
CARDS: Final = ("4111111111111111", "4111111111111112", "5555555555554444")
"""Well-known test numbers of card schemes; the second one's check digit is wrong."""

STEPS: Final = 7
"""Events of an undisturbed job in the audit log."""

Changes = Mapping[str, Any]


class OtherEcs:
    """A callback endpoint written from the seed alone: it takes one token and answers as documented.

    Attributes:
        notified: The callbacks it accepted, by path.
    """

    def __init__(self) -> None:
        self.notified: dict[str, dict[str, Any]] = {}
        self.heard = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve while the context lasts; yields host and port."""
        application = web.Application()
        application.router.add_post("/api/reporting/v1/partner/batch-jobs/{guid}/result-uploaded", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"errors": [{"status": "401", "title": "Unauthorized"}]}, status=401)
        guid, now = request.match_info["guid"], datetime.now(UTC).isoformat()
        self.notified[guid] = await request.json()
        self.heard.set()
        attributes = {"status": "RESULT_RECEIVED", "message": "Result upload confirmed", "received_at": now}
        data = {"type": "batch-job-result", "id": guid, "attributes": attributes}
        meta = {"timestamp": now, "requestId": "req-123456", "version": "1.0.0"}
        return web.json_response({"data": data, "meta": meta, "jsonapi": {"version": "1.0"}})


def rendered(changes: Changes, gone: frozenset[str]) -> str:
    """Return the example with other values, as a reader makes it.

    Args:
        changes: Values by table and key, e.g. ``kafka.bootstrap_servers``.
        gone: Tables and keys to take away.
    """
    lines, table, used = [], "", set[str]()
    for line in EXAMPLE.read_text().splitlines():
        if header := re.match(r"\[([^\]]+)\]", line):
            table = header[1]
        assigned = re.match(r"(\w+)\s*=", line)
        name = f"{table}.{assigned[1]}" if assigned else table
        if table in gone or name in gone:
            continue
        if assigned and name in changes:
            assert "# CHANGE" in line, f"{name} must be changed, but no comment says so"
            used.add(name)
            line = f"{assigned[1]} = {json.dumps(changes[name])}"  # noqa: PLW2901 - that is the point
        lines.append(line)
    assert used == set(changes), f"not in the example: {set(changes) - used}"
    return "\n".join(lines)


def changes_for(broker: Broker, bucket: PartnerBucket, endpoint: str, ecs_host: str) -> Changes:
    prefix = f"external-{uuid.uuid4().hex[:8]}."
    return {
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.replication_factor": 1,
        "kafka.topic_prefix": prefix,
        "kafka.group_prefix": prefix,
        "store.bucket": "card-pipeline-external",
        "store.endpoint": endpoint,
        "ingress.port": 0,
        "management.port": 0,
        "ecs.acme.success_status": 200,
        "ecs.acme.hosts.input": [bucket.host],
        "ecs.acme.hosts.result": [bucket.host],
        "ecs.acme.hosts.callback": [ecs_host],
    }


LOCAL: Final = {
    "PIPELINE_ECS__ACME__HOSTS__ALLOW_HTTP": "true",
    "PIPELINE_ECS__ACME__HOSTS__ALLOW_PRIVATE": "true",
    "PIPELINE_STORE__ALLOW_HTTP": "true",
    "PIPELINE_INGRESS__DRAIN_SECONDS": "0",
}


def write_secrets(folder: Path, server: SeaweedFS) -> None:
    """Write the files that the example names, beside it."""
    folder.mkdir(mode=0o700)
    values = {
        "s3-key-id": server.access_key,
        "s3-secret-key": server.secret_key,
        "acme-webhook": SECRET,
        "acme-token": TOKEN,
        "part-key": new_part_key(),
    }
    for name, value in values.items():
        (folder / name).write_text(value)
        (folder / name).chmod(0o600)


async def announce(url: str, bucket: PartnerBucket, ecs_host: str, guid: str) -> int:
    """Announce a job as the seed shows it; return the ingress's answer."""
    body = {
        "job_guid": guid,
        "partner_reference_id": "integrator-merchant1-location-002",
        "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
        "external_location_ids": ["46691", "32049", "30730"],
        "record_count": len(CARDS),
        "input_file_url": bucket.download_url(f"{guid}/input.csv"),
        "result_upload_url": bucket.upload_url(f"{guid}/output.csv"),
        "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds"),
        "callback_url": f"http://{ecs_host}/api/reporting/v1/partner/batch-jobs/{guid}/result-uploaded",
    }
    headers = {"X-Webhook-Secret": SECRET}
    url = f"{url}/webhooks/ecs/acme"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status


async def test_all_five_processes(apache_kafka: Broker, seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """From `config check` and `topics create` to the callback, the result in the bucket, and a verified audit log."""
    bucket, ecs, guid = PartnerBucket(seaweedfs, "another-ecs"), OtherEcs(), str(uuid.uuid4())
    config = tmp_path / "external.toml"
    write_secrets(tmp_path / "secrets", seaweedfs)
    async with ecs.running() as ecs_host:
        changes = changes_for(apache_kafka, bucket, seaweedfs.endpoint, ecs_host)
        config.write_text(rendered(changes, frozenset({"kafka.tls", "kafka.sasl"})))

        async def cli(*arguments: str) -> dict[str, Any]:
            code, said = await run_cli("--config", str(config), *arguments, env=LOCAL)
            assert code == 0, said
            document: dict[str, Any] = json.loads(said)
            return document

        assert (await cli("config", "check", "--json"))["ok"]
        await cli("topics", "create", "--json")
        assert (await cli("topics", "check", "--json"))["ok"]

        await bucket.put(
            f"{guid}/input.csv", "\n".join(["card_number,amount", *(f"{card},1.00" for card in CARDS)]).encode()
        )
        commands = [["ingress"], *(["work", stage] for stage in ("process", "upload", "confirm", "audit"))]
        running = [
            FlowProcess(command[-1], ["--config", str(config), *command], tmp_path / command[-1], LOCAL)
            for command in commands
        ]
        try:
            ready = await asyncio.gather(*(process.ready() for process in running))
            assert await announce(ready[0]["url"], bucket, ecs_host, guid) == 200
            async with asyncio.timeout(60):
                await ecs.heard.wait()
            assert ecs.notified[guid] == {
                "success": True,
                "records_processed": 3,
                "records_failed": 1,
                "error_message": None,
            }
            assert (await cli("job", "follow", guid, "--timeout", "60", "--json"))["state"] == "confirmed"
            result = await bucket.get(f"{guid}/output.csv")
            assert result
            rows = list(csv.DictReader(io.StringIO(result.decode())))
            assert [(row["card_number"], row["status"]) for row in rows] == list(
                zip(CARDS, ("ok", "failed", "ok"), strict=True)
            )
            async with asyncio.timeout(60):
                while (await cli("audit", "verify", "--json"))["events"] < STEPS:  # the log may be a moment behind
                    pass
            codes = await asyncio.gather(*(process.stop() for process in running))
            assert codes == [0] * 5
            assert (await cli("audit", "verify", "--json"))["ok"]
        finally:
            for process in running:
                process.kill()


def test_what_is_marked_is_all_there_is_to_change() -> None:
    """The example is TOML, each line that a reader must change says so, and its comment says to what."""
    text = EXAMPLE.read_text()
    assert tomllib.loads(text)["ecs"]["acme"]
    for line in text.splitlines():
        if re.search(r"example\.com|11111111-", line):
            assert re.search(r"# CHANGE: \w+", line)
