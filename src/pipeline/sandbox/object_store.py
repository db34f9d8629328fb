"""The object store: GET, HEAD and PUT by pre-signed URL, path style, refused as S3 does (docs/reference/sandbox.md)."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, NoReturn
from uuid import UUID

from aiohttp import web

from pipeline.sandbox.disk import Disk
from pipeline.sandbox.faults import Fault, Faults, Kind, Target, delay, drop
from pipeline.sandbox.s3_access import MESSAGES, AccessRules, S3Error, SignedRequest, expired
from pipeline.sandbox.s3_objects import CRC_PARAMETER, EMPTY_CRC, BodySender, check_length, check_sums, head_of, receive
from pipeline.sandbox.settings import ObjectStoreSettings
from pipeline.sandbox.sigv4 import Credentials, Pairs, decode_path, decode_query, encode_query, presign

DROPPED: Final = 0
"""Used instead of a status if the answer was not sent, or not completely."""


class Traffic:
    """Counters; they grow with the number of objects, not of requests or bytes.

    Attributes:
        requests: Number of answers by (method, key, status); status 0 is a connection that ended early.
        rewritten: Number of requests, by key, whose query string is encoded differently from that of the issued URL.
        sent: Sent bytes of bodies, by key.
        received: Received bytes of bodies, by key.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.rewritten: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()

    def answered(self, method: str, key: str, status: int) -> None:
        """Count one answer."""
        self.requests[method, key, status] += 1

    def round_trips(self, key: str, method: str | None = None) -> int:
        """Return the number of requests for an object, whatever the answers."""
        return sum(
            number for (verb, name, _), number in self.requests.items() if name == key and method in {None, verb}
        )

    def rows(self) -> list[dict[str, object]]:
        """Return the answers as rows for the control API."""
        return [
            {"method": method, "key": key, "status": status, "count": number}
            for (method, key, status), number in sorted(self.requests.items())
        ]


_FAULTS: Final[web.RequestKey[dict[Kind, Fault]]] = web.RequestKey("faults", dict)
_TARGETS: Final[Mapping[str, Target]] = {"GET": "input", "PUT": "result"}


class ObjectStore:
    """An S3-like store for one account and one bucket.

    Attributes:
        disk: The objects.
        traffic: Counters of requests and answers.
        on_change: Replaces the object of a key; called for the fault ``change``.
    """

    def __init__(
        self, settings: ObjectStoreSettings, disk: Disk, *, faults: Faults, clock: Callable[[], datetime]
    ) -> None:
        self.disk = disk
        self.traffic = Traffic()
        self.on_change: Callable[[str], Awaitable[None]] | None = None
        self._settings = settings
        self._faults = faults
        self._clock = clock
        self._issued: set[str] = set()
        self._revoked: set[str] = set()
        self._credentials = Credentials(
            settings.access_key, settings.secret_key.get_secret_value(), region=settings.region
        )
        skew = timedelta(seconds=settings.clock_skew_seconds)
        self._access = AccessRules(self._credentials, clock, skew, self._revoked)

    def routes(self) -> list[web.RouteDef]:
        """Return the store's route: everything below the bucket."""
        path = f"/{self._settings.bucket}/{{key:.*}}"
        return [web.route("*", path, self._handle, expect_handler=self._expect)]

    def download_url(self, base: str, key: str, *, expires: int, now: datetime | None = None) -> str:
        """Return a pre-signed GET URL, with the parameters that ECS's SDK adds. ``expires`` in seconds."""
        extra = (("x-amz-checksum-mode", "ENABLED"), ("x-id", "GetObject"))
        return self._presigned("GET", base, key=key, expires=expires, now=now, extra=extra)

    def upload_url(
        self, base: str, key: str, *, expires: int, now: datetime | None = None, checksum: bool = True
    ) -> str:
        """Return a pre-signed PUT URL, with the empty body's CRC32 that ECS's SDK adds by default."""
        sums = ((CRC_PARAMETER, EMPTY_CRC), ("x-amz-sdk-checksum-algorithm", "CRC32")) if checksum else ()
        return self._presigned("PUT", base, key=key, expires=expires, now=now, extra=(*sums, ("x-id", "PutObject")))

    def revoke(self, url: str) -> None:
        """Let a URL expire now."""
        self._revoked.add(_signature(url))

    def _presigned(self, method: str, base: str, *, key: str, expires: int, now: datetime | None, extra: Pairs) -> str:
        scheme, _, host = base.rstrip("/").partition("://")
        while True:
            url = presign(
                method,
                host,
                f"/{self._settings.bucket}/{key}",
                credentials=self._credentials,
                now=now or self._clock(),
                expires=expires,
                extra=(("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), *extra),
                scheme=scheme,
            )
            if _signature(url) not in self._issued:
                self._issued.add(_signature(url))
                return url
            expires += 1  # two URLs within one second would be equal, so revoking the old one would revoke the new one

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer ``Expect: 100-continue``: refuse before the body is sent, or ask for it."""
        try:
            await self._admit(request)
        except S3Error as error:
            return self._refusal(request, error)
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp's own handler does, since the answer itself has not begun
        return None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            if _FAULTS not in request:
                await self._admit(request)
            response = await (self._put(request, key) if request.method == "PUT" else self._get(request, key))
        except S3Error as error:
            response = self._refusal(request, error)
            if error.code == "RequestTimeout":
                await _close_after(request, response)
            return response
        except (ConnectionError, web.RequestPayloadError):
            self.traffic.answered(request.method, key, DROPPED)
            return drop(request)
        faults = request[_FAULTS]
        gone = not faults.keys().isdisjoint({"lost", "cut"})
        self.traffic.answered(request.method, key, DROPPED if gone else response.status)
        return drop(request) if "lost" in faults else response

    def _refusal(self, request: web.Request, error: S3Error) -> web.Response:
        self.traffic.answered(request.method, request.match_info["key"], error.status)
        return error.response(secrets.token_hex(8).upper(), head=request.method == "HEAD")

    async def _admit(self, request: web.Request) -> None:
        """Make all checks that need no body, then apply the faults that replace an answer."""
        raw_path, _, raw_query = request.raw_path.partition("?")
        if encode_query(decode_query(raw_query)) != raw_query:
            self.traffic.rewritten[request.match_info["key"]] += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.method not in {"GET", "HEAD", "PUT"}:
            raise S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        self._access.check(SignedRequest(request.method, raw_path, raw_query, headers))
        if request.method == "PUT":
            check_length(headers, self._settings.max_object_bytes)
        target = _TARGETS.get(request.method)
        faults = self._faults.take(target, job_of(decode_path(raw_path))) if target else {}
        request[_FAULTS] = faults
        await delay(faults)
        if "expired" in faults:
            raise expired(1, self._clock(), self._clock())
        if "status" in faults:
            _raise_status(faults["status"])

    async def _put(self, request: web.Request, key: str) -> web.StreamResponse:
        faults = request[_FAULTS]
        incoming = self.disk.incoming()
        try:
            async for done in receive(request, incoming, self._settings.body_timeout_seconds, faults.get("cut")):
                self.traffic.received[key] += done
            check_sums(request, incoming, enforce_query=self._settings.mode == "value-enforcing")
            stored = self.disk.keep(key, incoming, modified=self._clock())
        except BaseException:
            incoming.discard()
            raise
        etag = f'"{stored.md5[::-1]}"' if "wrong_etag" in faults else stored.etag
        return web.Response(status=200, headers={"ETag": etag, "x-amz-request-id": secrets.token_hex(8).upper()})

    async def _get(self, request: web.Request, key: str) -> web.StreamResponse:
        faults = request[_FAULTS]
        opened = self.disk.open(key)
        if opened is None:
            raise S3Error(404, "NoSuchKey", MESSAGES[404][1], {"Key": key})
        stored, file = opened
        with file:
            head = head_of(request, stored, whole="whole" in faults)
            if request.method == "HEAD" or head.response.status == web.HTTPNotModified.status_code:
                return head.response
            await head.response.prepare(request)
            delivery = BodySender(request, head, file, faults=faults, change=lambda: self._change(key))
            async for done in delivery.run():
                self.traffic.sent[key] += done
            return head.response

    async def _change(self, key: str) -> None:
        if self.on_change is not None:
            await self.on_change(key)


async def _close_after(request: web.Request, response: web.StreamResponse) -> None:
    """Send an answer and close the connection, instead of waiting for the rest of the body."""
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()


def job_of(path: str) -> UUID | None:
    """Return the job of an object, which is the name of its folder."""
    folders = path.rsplit("/", 2)
    try:
        return UUID(folders[-2])
    except (ValueError, IndexError):
        return None


def _raise_status(fault: Fault) -> NoReturn:
    code, message = MESSAGES.get(fault.status, ("TemporaryRedirect", "Please re-send this request elsewhere."))
    headers = {"Retry-After": fault.retry_after, "Location": fault.location}
    kept = {name: value for name, value in headers.items() if value is not None}
    raise S3Error(fault.status, fault.code or code, message, headers=kept)


def _signature(url: str) -> str:
    return dict(decode_query(url.partition("?")[2])).get("X-Amz-Signature", "")
