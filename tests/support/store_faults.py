"""A proxy in front of an S3 server that answers as bad networks and busy servers do.

It passes each request on with its ``Host`` header, which the signature covers, so the server accepts it.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

import aiohttp
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from pipeline.storage import S3Settings, S3Store

Fault = Literal["lost answer", "lost request", "409", "412", "503", "stale listing"]
"""``lost answer``: the server does it, and the connection is cut. ``lost request``: it never gets it. ``409``, ``412``:
a refusal of a creation although there is no such object, e.g. because another creation is under way, and then fails.
``503``: SlowDown. ``stale listing``: what was created lately is not listed."""

FAULTS: Final[tuple[Fault, ...]] = ("lost answer", "lost request", "409", "412", "503", "stale listing")
_REFUSALS: Final = {
    "409": (409, "ConditionalRequestConflict"),
    "412": (412, "PreconditionFailed"),
    "503": (503, "SlowDown"),
}
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"})
_ROW: Final = re.compile(r"<(Contents|CommonPrefixes)>.*?</\1>", re.DOTALL)
_KEY: Final = re.compile(r"<Key>([^<]+)</Key>")
_STALE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the proxy got."""

    method: str
    key: str
    listing: bool
    creation: bool

    def can(self, fault: Fault) -> bool:
        """Return whether the fault makes sense for this request."""
        if fault in {"409", "412"}:
            return self.creation
        return self.listing if fault == "stale listing" else True


class FaultyProxy:
    """Answers in the place of a server.

    Attributes:
        asked: The requests, in order.
        choose: Returns the fault of a request; None: it is passed on.
        page: Most rows of a page of a listing; None: as many as the server sends.
    """

    def __init__(self, upstream: str, bucket: str) -> None:
        self.asked: list[Asked] = []
        self.choose: Callable[[Asked], Fault | None] = lambda _: None
        self.page: int | None = None
        self._upstream = upstream.rstrip("/")
        self._bucket = bucket
        self._created: dict[str, float] = {}
        self._rest: dict[str, list[str]] = {}
        self.session: aiohttp.ClientSession | None = None

    def forget(self) -> None:
        """Reset the counts."""
        self.asked.clear()
        self._created.clear()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        asked = self._read(request)
        self.asked.append(asked)
        fault = self.choose(asked)
        if fault is not None and not asked.can(fault):
            fault = None
        if fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            return _xml(f"<Error><Code>{code}</Code></Error>", status)
        if fault == "lost request":
            return _cut(request)
        token = request.query.get("continuation-token", "")
        if token in self._rest:
            return _xml(self._listing("<ListBucketResult></ListBucketResult>", self._rest.pop(token)))
        answer = await self._pass_on(request)
        if asked.creation and answer.status == 200:
            self._created[asked.key] = time.monotonic()
        if asked.listing and answer.status == 200 and (self.page or fault == "stale listing"):
            text = (answer.body or b"").decode()
            rows = [match[0] for match in _ROW.finditer(text)]
            if fault == "stale listing":
                rows = [row for row in rows if not self._is_young(row)]
            return _xml(self._listing(text, rows))
        return _cut(request) if fault == "lost answer" else answer

    def _read(self, request: web.Request) -> Asked:
        key = request.path.removeprefix(f"/{self._bucket}").removeprefix("/")
        creation = request.method == "PUT" and request.headers.get("If-None-Match") == "*"
        return Asked(request.method, key, request.method == "GET" and not key, creation)

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self.session
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP - {"date"}}
        url = URL(f"{self._upstream}{request.rel_url.raw_path_qs}", encoded=True)
        body = await request.read()
        async with self.session.request(request.method, url, headers=headers, data=body or None) as found:
            kept = {name: value for name, value in found.headers.items() if name.lower() not in _HOP}
            if request.method == "HEAD" and "Content-Length" in found.headers:
                kept["Content-Length"] = found.headers["Content-Length"]
            return web.Response(status=found.status, headers=kept, body=await found.read())

    def _is_young(self, row: str) -> bool:
        found = _KEY.search(row)
        return found is not None and time.monotonic() - self._created.get(found[1], -1e9) < _STALE_SECONDS

    def _listing(self, text: str, rows: list[str]) -> str:
        """Return a page with at most so many rows, and keep the rest for the next request."""
        size = self.page or max(1, len(rows))
        more = _ROW.sub("", text)
        if self.page is not None or "<NextContinuationToken>" not in text:
            more = "<ListBucketResult></ListBucketResult>"
        if rows[size:]:
            token = f"rest-{len(self.asked)}"
            self._rest[token] = rows[size:]
            more = more.replace(
                "</ListBucketResult>",
                f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>",
            )
        elif "<IsTruncated>" not in more:
            more = more.replace("</ListBucketResult>", "<IsTruncated>false</IsTruncated></ListBucketResult>")
        return more.replace("</ListBucketResult>", "".join(rows[:size]) + "</ListBucketResult>")


@asynccontextmanager
async def faulty(settings: S3Settings, *, retries: int) -> AsyncIterator[tuple[FaultyProxy, S3Store]]:
    """Put a proxy before the server of the settings; yield it, and a store that reaches the server through it."""
    assert settings.endpoint
    proxy = FaultyProxy(settings.endpoint, settings.bucket)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", proxy.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        store = S3Store(settings.model_copy(update={"endpoint": f"http://{host}:{port}"}), retries=retries)
        async with aiohttp.ClientSession(auto_decompress=False) as proxy.session:
            try:
                yield proxy, store
            finally:
                await store.close()
    finally:
        await runner.cleanup()


def settings_of(endpoint: str, bucket: str, access_key: str, secret_key: str, *, prefix: str = "") -> S3Settings:
    """Return the settings of a server on loopback."""
    return S3Settings(
        kind="s3",
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint,
        access_key_id=SecretStr(access_key),
        secret_access_key=SecretStr(secret_key),
        allow_http=True,
        request_timeout_seconds=5.0,
    )


def _cut(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(
        status=status, text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', content_type="application/xml"
    )
