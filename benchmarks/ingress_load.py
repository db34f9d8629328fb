"""The load generator: so many signed webhooks over so many keep-alive connections to loopback, then it stops."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import uvloop
import yarl

from benchmarks.ingress import SECRET
from pipeline.sandbox.weavr import SendPlan, SigningKeys


def announcements(url: yarl.URL, count: int) -> list[bytes]:
    """Return whole HTTP requests, each another job of about 600 bytes."""
    made = []
    expires_at = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    for number in range(count):
        body = json.dumps(
            {
                "job_guid": str(UUID(int=(time.time_ns() << 60) + number, version=4)),
                "partner_reference_id": "integrator-merchant1-location-002",
                "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
                "external_location_ids": ["46691", "32049", "30730"],
                "record_count": 200,
                "input_file_url": "https://files.example/batch/input.csv?X-Amz-Signature=0123456789abcdef",
                "result_upload_url": "https://files.example/batch/output.csv?X-Amz-Signature=0123456789abcdef",
                "expires_at": expires_at,
                "callback_url": "https://ecs.example/api/reporting/v1/partner/batch-jobs/x/result-uploaded",
            }
        ).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = (("Content-Type", "application/json"), ("X-Signature", signature))
        made.append(request(url, "/webhooks/ecs/bench", headers, body))
    return made


def events(url: yarl.URL, count: int) -> list[bytes]:
    """Return whole HTTP requests, each another event of Weavr's 32 kinds."""
    now_ms = time.time_ns() // 1_000_000
    plan = SendPlan(count=count, seed=now_ms)
    made = plan.events("bench", SigningKeys(SECRET.encode()), now_ms=now_ms)
    return [request(url, f"/webhooks/weavr/bench{event.path}", event.headers, event.body) for event in made]


MAKERS: Final = {"ecs": announcements, "weavr": events}


def request(url: yarl.URL, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return an HTTP request as it is sent."""
    lines = (f"POST {path} HTTP/1.1", f"Host: {url.host}", *(f"{name}: {value}" for name, value in headers))
    return "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode() + body


async def connection(url: yarl.URL, queue: list[bytes]) -> None:
    """Send one request after another until none is left."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    while queue:
        writer.write(queue.pop())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise SystemExit(f"the server answered {head.splitlines()[0]!r}")
        length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:")), 0)
        if length:
            await reader.readexactly(length)
    writer.close()


async def load(url: yarl.URL, kind: str, connections: int, count: int) -> float:
    """Return requests per second."""
    queue = MAKERS[kind](url, count)
    begun = time.perf_counter()
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connection(url, queue))
    return count / (time.perf_counter() - begun)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reached = runner.run(load(yarl.URL(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    print(json.dumps({"per_second": reached}))
