"""Downloads and uploads against a scripted server on loopback, with little patience."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from pydantic import SecretStr

from pipeline.jobs.transfer import SignedUrl, SourceInfo, TransferParameters, Transfers, open_transfers
from pipeline.jobs.transfer.testing import Act, Exchange, ScriptedServer, scripted_server
from pipeline.observability import Metrics
from pipeline.outbound import Circuits, HostRules, NetworkSettings

SECRET = "0123456789abcdef" * 4
"""The signature in every URL here; it must turn up nowhere."""
PATH = "/b%2Fucket/in%7Eput.csv"
QUERY = f"X-Amz-Signature={SECRET}&X-Amz-SignedHeaders=host&x-id=Get%2FPut"
ETAG = '"0cc175b9c0f1b6a831c399e269772661"'


def now() -> datetime:
    """The clock of these tests."""
    return datetime.now(UTC)


@dataclass
class Ground:
    """A server, and the way to it.

    Attributes:
        urls: What the URL source gives, one after the other; the last again and again.
        asked: How often it was asked.
    """

    server: ScriptedServer
    transfers: Transfers
    metrics: Metrics
    urls: list[SignedUrl] = field(default_factory=list)
    asked: int = 0

    def signed(self, query: str = QUERY, *, seconds: float = 60.0, path: str = PATH) -> SignedUrl:
        """Return a URL of the server with a deadline in so many seconds."""
        return SignedUrl(SecretStr(f"{self.server.url}{path}?{query}"), now() + timedelta(seconds=seconds))

    async def source(self) -> SignedUrl:
        """Give the newest URL."""
        self.asked += 1
        urls = self.urls or [self.signed()]
        return urls[min(self.asked, len(urls)) - 1]

    async def fetch(
        self,
        *,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
        encoding: Literal["identity", "gzip"] | None = None,
    ) -> tuple[SourceInfo, bytes]:
        """Download all there is."""
        opened = self.transfers.downloader.open(self.source, start=start, end=end, etag=etag, encoding=encoding)
        async with opened as download:
            return download.info, b"".join([piece async for piece in download.chunks()])

    async def put(self, data: bytes, *, piece: int = 1000, size: int | None = None) -> str:
        """Upload bytes in pieces."""

        async def body() -> AsyncGenerator[bytes, None]:
            for at in range(0, len(data), piece):
                yield data[at : at + piece]

        return await self.transfers.uploader.put(self.source, size=len(data) if size is None else size, body=body)

    def retries(self, direction: str) -> dict[str, float]:
        """Return how often what was tried again, from the metrics."""
        (family,) = self.metrics.transfer_retries.collect()
        return {
            sample.labels["code"]: sample.value
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["direction"] == direction
        }


@asynccontextmanager
async def ground(
    *acts: Act,
    network: NetworkSettings | None = None,
    rules: Mapping[str, Any] | None = None,
    max_tries: int = 4,
    clock: Callable[[], datetime] = now,
    circuits: Circuits | None = None,
    **patience: Any,
) -> AsyncIterator[Ground]:
    """Open transfers to a server with a script."""
    retry = {"first_seconds": 0.002, "max_seconds": 0.01, "max_tries": max_tries}
    settings = TransferParameters.model_validate({"retry": retry, **patience})
    metrics = Metrics()
    async with scripted_server(*acts) as server:
        host = server.url.removeprefix("http://")
        allowed = {"input": (host,), "result": (host,), "allow_http": True, "allow_private": True, **(rules or {})}
        async with open_transfers(
            settings,
            rules=HostRules.model_validate(allowed),
            network=network or NetworkSettings(),
            clock=clock,
            metrics=metrics,
            circuit_of=partial((circuits or Circuits(failures_to_open=math.inf)).of, "acme"),
        ) as transfers:
            yield Ground(server, transfers, metrics)


def error_document(code: str, message: str = "", extra: str = "") -> bytes:
    """Return an S3 error document."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>{extra}<HostId>x</HostId></Error>"
    ).encode()


def refusing(status: int, code: str = "", message: str = "", extra: str = "", **headers: str) -> Act:
    """Answer with an error document."""

    async def act(exchange: Exchange) -> None:
        await exchange.answer(status, error_document(code, message, extra), **headers)

    return act


def whole(data: bytes, etag: str = ETAG, **headers: str) -> Act:
    """Answer 200 with everything."""

    async def act(exchange: Exchange) -> None:
        await exchange.answer(200, data, **({"ETag": etag} if etag else {}), **headers)

    return act


def cut_after(data: bytes, count: int, etag: str = ETAG, **headers: str) -> Act:
    """Announce everything, and close after so many bytes."""

    async def act(exchange: Exchange) -> None:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        tag = [("ETag", etag)] if etag else []
        await exchange.head(200, [*tag, ("Content-Length", str(len(data))), *named])
        await exchange.send(data[:count])

    return act


def ranged(data: bytes, etag: str = ETAG, *, count: int | None = None, **headers: str) -> Act:
    """Answer like S3 to Range and If-Match; close after ``count`` bytes if it is given."""

    async def act(exchange: Exchange) -> None:
        asked = exchange.request.headers
        if asked.get("if-match", etag) != etag:
            await exchange.answer(412, error_document("PreconditionFailed"))
            return
        first, _, last = asked.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
        if start >= len(data) > 0:
            document = error_document("InvalidRange", extra=f"<ActualObjectSize>{len(data)}</ActualObjectSize>")
            await exchange.answer(416, document)
            return
        span = [("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")] if "range" in asked else []
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await exchange.head(
            206 if span else 200,
            [("ETag", etag), ("Content-Length", str(end - start)), ("Connection", "close"), *span, *named],
        )
        await exchange.send(data[start : end if count is None else min(start + count, end)])

    return act
