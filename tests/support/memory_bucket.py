"""A bucket of S3 in memory that counts its requests: pages of 1,000, bulk deletion, creation with If-None-Match.

It lists in key order, as AWS does. Signatures are not checked. For what a look or a command costs; what a server may do
wrong is tested against real ones.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from xml.sax.saxutils import escape

from aiohttp import web
from pydantic import SecretStr

from pipeline.storage import S3Settings, S3Store

_PAGE = 1000
_WHEN = "2026-01-22T12:00:00.000Z"
_MODIFIED = {"Last-Modified": "Thu, 22 Jan 2026 12:00:00 GMT", "ETag": '"e"'}
_KEY = re.compile(r"<Key>([^<]+)</Key>")


class MemoryBucket:
    """The objects of one bucket.

    Attributes:
        requests: Requests so far, by kind: ``get``, ``put``, ``delete``, ``delete_many``, ``list``.
        bulk: Whether it knows the request that deletes many objects.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.requests: Counter[str] = Counter()
        self.bulk = True
        self._objects: dict[str, bytes] = {}
        self._keys: list[str] = []

    def fill(self, keys: Iterable[str], data: bytes = b"") -> None:
        """Add objects, by default empty ones."""
        self._objects.update(dict.fromkeys(keys, data))
        self._keys = sorted(self._objects)

    def clear(self) -> None:
        """Delete all objects."""
        self._objects.clear()
        self._keys.clear()

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys with a prefix, in order."""
        return self._keys[bisect_left(self._keys, prefix) : bisect_left(self._keys, prefix + "\x7f")]

    def app(self) -> web.Application:
        """Return the server."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/bucket", self._list)
        app.router.add_post("/bucket", self._delete_many)
        app.router.add_get("/bucket/{key:.+}", self._get)
        app.router.add_put("/bucket/{key:.+}", self._put)
        app.router.add_delete("/bucket/{key:.+}", self._delete)
        return app

    async def _get(self, request: web.Request) -> web.Response:
        self.requests[request.method.lower()] += 1
        data = self._objects.get(request.match_info["key"])
        if data is None:
            return _error(404, "NoSuchKey")
        asked = request.http_range
        if asked.start is None:
            return web.Response(body=data, headers=_MODIFIED)
        if asked.start >= len(data):
            return _error(416, "InvalidRange")
        part = data[asked]
        headers = _MODIFIED | {"Content-Range": f"bytes {asked.start}-{asked.start + len(part) - 1}/{len(data)}"}
        return web.Response(status=206, body=part, headers=headers)

    async def _put(self, request: web.Request) -> web.Response:
        self.requests["put"] += 1
        key, data = request.match_info["key"], await request.read()
        if request.headers.get("If-None-Match") == "*" and key in self._objects:
            return _error(412, "PreconditionFailed")
        if key not in self._objects:
            insort(self._keys, key)
        self._objects[key] = data
        return web.Response(headers={"ETag": '"e"'})

    async def _delete(self, request: web.Request) -> web.Response:
        self.requests["delete"] += 1
        self._remove(request.match_info["key"])
        return web.Response(status=204)

    async def _delete_many(self, request: web.Request) -> web.Response:
        self.requests["delete_many"] += 1
        if not self.bulk:
            return _error(405, "MethodNotAllowed")
        found = _KEY.findall(await request.text())
        for key in found:
            self._remove(key)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in found)
        return _xml(f"<DeleteResult>{deleted}</DeleteResult>")

    def _remove(self, key: str) -> None:
        if self._objects.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    async def _list(self, request: web.Request) -> web.Response:
        self.requests["list"] += 1
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        at = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        rows: list[str] = []
        while at < len(self._keys) and self._keys[at].startswith(prefix) and len(rows) < _PAGE:
            key = self._keys[at]
            name, slash, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
            if slash:
                after = f"{prefix}{name}{slash}\x7f"
                rows.append(f"<CommonPrefixes><Prefix>{escape(prefix + name + slash)}</Prefix></CommonPrefixes>")
                at = bisect_right(self._keys, after)
            else:
                after, at = key, at + 1
                rows.append(_row(key, len(self._objects[key])))
        more = at < len(self._keys) and self._keys[at].startswith(prefix)
        token = f"<NextContinuationToken>{escape(after)}</NextContinuationToken>" if more else ""
        truncated = str(more).lower()
        return _xml(
            f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{''.join(rows)}</ListBucketResult>"
        )


@asynccontextmanager
async def running_bucket(bucket: MemoryBucket) -> AsyncIterator[S3Store]:
    """Serve a bucket on loopback; yield a store that uses it."""
    runner = web.AppRunner(bucket.app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        secret = SecretStr("memory-bucket-keys")
        store = S3Store(
            S3Settings(
                kind="s3",
                bucket="bucket",
                endpoint=f"http://{host}:{port}",
                access_key_id=secret,
                secret_access_key=secret,
                allow_http=True,
            )
        )
        try:
            yield store
        finally:
            await store.close()
    finally:
        await runner.cleanup()


def _row(key: str, size: int) -> str:
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{_WHEN}</LastModified>"
        f'<ETag>"e"</ETag><Size>{size}</Size></Contents>'
    )


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml")
