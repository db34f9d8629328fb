"""Download and upload of 256 MB compared with ``curl``, with the same server on loopback.

Ours is the code of the stages: rates, deadlines and checksums watched, pieces handed on. The file that it downloads is
dropped, the file that it uploads is made of one piece in memory. ``curl`` writes to /dev/null, and uploads a file that
the system holds in memory. The row is MB per second over both ways.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import uvloop
from pydantic import SecretStr

from benchmarks.local_server import running_local_server
from pipeline.jobs.transfer import SignedUrl, TransferSettings, open_transfers
from pipeline.outbound import HostRules, NetworkSettings, split_url

MEGABYTES: Final = 256
ROW: Final = "download + upload against curl from and to the same server: MB/s"
FLOORS: Final = {ROW: 0.3}
TARGETS: Final = {ROW: 0.9}
_MEGABYTE: Final = 1 << 20


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return one row of (ours, peer): MB per second, both ways together."""
    size = int(MEGABYTES * scale) * _MEGABYTE
    with tempfile.TemporaryDirectory() as folder, running_local_server() as url:
        file = Path(folder) / "upload"
        with file.open("wb") as writer:
            writer.truncate(size)
        file.read_bytes()
        pairs = [(_ours(url, size), _curl(url, size, file)) for _ in range(rounds)]
    return {ROW: [(2 * size / _MEGABYTE / ours, 2 * size / _MEGABYTE / peer) for ours, peer in pairs]}


def _curl(url: str, size: int, file: Path) -> float:
    shown = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", "%{time_total}\n"]
    ways = ([f"{url}/file/{size}"], ["--upload-file", str(file), f"{url}/result"])
    return sum(
        float(subprocess.run([*shown, *way], check=True, capture_output=True, text=True).stdout)  # noqa: S603
        for way in ways
    )


def _ours(url: str, size: int) -> float:
    command = [sys.executable, "-m", "benchmarks.transfer", url, str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    seconds: float = json.loads(done.stdout)
    return seconds


async def transfer(url: str, size: int) -> float:
    """Return the seconds of one download and one upload."""
    host = split_url(url).authority
    rules = HostRules(input=(host,), result=(host,), allow_http=True, allow_private=True)
    deadline = datetime.now(UTC) + timedelta(hours=1)

    async def source() -> SignedUrl:
        return SignedUrl(SecretStr(f"{url}/file/{size}"), deadline)

    async def target() -> SignedUrl:
        return SignedUrl(SecretStr(f"{url}/result"), deadline)

    piece = bytes(_MEGABYTE)

    async def body() -> AsyncGenerator[bytes, None]:
        for _ in range(size // len(piece)):
            yield piece

    async with open_transfers(
        TransferSettings().parameters(),
        rules=rules,
        network=NetworkSettings(),
        clock=lambda: datetime.now(UTC),
    ) as transfers:
        begun = time.perf_counter()
        got = 0
        async with transfers.downloader.open(source) as download:
            async for data in download.chunks():
                got += len(data)
        if got != size:
            raise SystemExit(f"{got} of {size} bytes were downloaded")
        await transfers.uploader.put(target, size=size, body=body)
        return time.perf_counter() - begun


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(transfer(sys.argv[1], int(sys.argv[2])))))
