"""The load generator: for each input line, sends signed webhooks over keep-alive connections to loopback.

As fast as they are answered; or so many per second, each sent at its time by the next free connection, and the time of
its answer counted from then, however late it was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import uvloop
import yarl

from benchmarks.ingress import SECRET
from pipeline.sandbox.weavr import SendPlan, SigningKeys, mix


def announcements(url: yarl.URL, count: int) -> list[bytes]:
    """Return whole HTTP requests, each with a different job of about 600 bytes."""
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


def events(url: yarl.URL, count: int, pattern: str = "*") -> list[bytes]:
    """Return whole HTTP requests, each with a different event of the kinds that match the pattern."""
    now_ms = time.time_ns() // 1_000_000
    plan = SendPlan(count=count, seed=now_ms, weights=mix({pattern: 1}))
    made = plan.events("bench", SigningKeys(SECRET.encode()), now_ms=now_ms)
    return [request(url, f"/webhooks/weavr/bench{event.path}", event.headers, event.body) for event in made]


def authorisations(url: yarl.URL, count: int) -> list[bytes]:
    """Return whole HTTP requests, each with a different authorisation of a card payment, all for one topic."""
    return events(url, count, "managed_cards/authorisations")


MAKERS: Final = {"announcements": announcements, "events": events, "authorisations": authorisations}


def request(url: yarl.URL, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return the bytes of an HTTP request."""
    lines = (f"POST {path} HTTP/1.1", f"Host: {url.host}", *(f"{name}: {value}" for name, value in headers))
    return "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode() + body


async def connection(url: yarl.URL, queue: list[bytes], due: Iterator[float] | None, seconds: list[float]) -> None:
    """Send one request after another until none is left; record the duration of each."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    while queue:
        sent, begun = queue.pop(), next(due) if due else time.perf_counter()
        await asyncio.sleep(max(begun - time.perf_counter(), 0))
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise SystemExit(f"the server answered {head.splitlines()[0]!r}")
        length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:")), 0)
        if length:
            await reader.readexactly(length)
        seconds.append(time.perf_counter() - begun)
    writer.close()


async def load(url: yarl.URL, kind: str, connections: int, count: int, per_second: float | None) -> dict[str, float]:
    """Return requests per second, and the median and 99th percentile of the seconds of a request."""
    queue, seconds = MAKERS[kind](url, count), list[float]()
    begun = time.perf_counter()
    due = (begun + number / per_second for number in range(count)) if per_second else None
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connection(url, queue, due, seconds))
    percentiles = statistics.quantiles(seconds, n=100)
    per_second = count / (time.perf_counter() - begun)
    return {"per_second": per_second, "p50": percentiles[49], "p99": percentiles[98]}


def main() -> None:
    """Read one load per line and print its results, until the input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            target, what, at_once, how_many, *rate = line.split()
            per_second = float(rate[0]) if rate else None
            reached = runner.run(load(yarl.URL(target), what, int(at_once), int(how_many), per_second))
            print(json.dumps(reached), flush=True)


if __name__ == "__main__":
    main()
