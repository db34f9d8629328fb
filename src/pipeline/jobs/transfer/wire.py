"""Reads the stored bytes of one object in order, over as many connections as necessary."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

import aiohttp
import yarl

from pipeline.errors import TransientError
from pipeline.jobs.transfer.failures import (
    DOWNLOAD,
    NotFound,
    SourceChanged,
    SourceRefused,
    Tries,
    as_transient,
    failure_of,
    next_url,
    refusal_of,
    renewed,
    translated,
)
from pipeline.jobs.transfer.pace import Pace
from pipeline.jobs.transfer.protocols import SignedUrl, UrlSource
from pipeline.jobs.transfer.settings import TransferParameters
from pipeline.jobs.transfer.stored import stated_crc
from pipeline.observability import Metrics
from pipeline.outbound import Call, Circuit, HostUnavailable, host_of, request_url

PIECE_BYTES: Final = 262_144
"""About how many bytes are handed on at once: as many as the event loop receives at once."""
_SMALL_BYTES: Final = 65_536
"""A smaller piece is joined with those behind it: each piece costs the reader a turn, joining costs a copy."""

_PROGRESS_BYTES: Final = 262_144
"""After this many bytes without a failure, earlier failures are forgotten."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


class _Link:
    """A connection whose answer's body is being read."""

    def __init__(self, response: aiohttp.ClientResponse, pace: Pace) -> None:
        self.response: Final = response
        self._pace = pace
        self._taken = 0

    async def read(self) -> bytes:
        """Return the next bytes, about :data:`PIECE_BYTES` at most; at the end b"". It raises like ``Pace.take``."""
        if self.response.content.total_bytes > self._taken:  # they are here: no timeout is needed
            data = await self._piece()
            self._pace.passed(len(data), 0.0)
        else:
            data = await self._pace.take(self._piece(), DOWNLOAD)
        self._taken += len(data)
        return data

    async def _piece(self) -> bytes:
        """Return one piece as the event loop received it, which copies nothing; a small one with those behind it."""
        content = self.response.content
        while True:
            data, ends_http_chunk = await content.readchunk()
            if data or not ends_http_chunk:
                break
        if 0 < len(data) < _SMALL_BYTES and content.total_bytes > self._taken + len(data):
            data += content.read_nowait(PIECE_BYTES - len(data))
        return data


@dataclass(frozen=True, slots=True)
class Means:
    """The dependencies of every download of an integration."""

    session: aiohttp.ClientSession
    settings: TransferParameters
    clock: Callable[[], datetime]
    metrics: Metrics | None
    circuit: Circuit


class Wire:
    """Reads an object from one byte to its end or to another byte; reconnects with Range and If-Match.

    Attributes:
        etag: The received or required ETag; empty if there is none that a resume could rely on.
        size: Bytes of the whole object, or None if the server does not say.
        content_encoding: As received with the first answer.
        ranged: Whether the last answer had only the requested range.
    """

    def __init__(
        self, means: Means, source: UrlSource, *, start: int = 0, end: int | None = None, etag: str = ""
    ) -> None:
        self.etag = etag
        self.size: int | None = None
        self.content_encoding = ""
        self.ranged = False
        self._means = means
        self._source = source
        self._tries = Tries(means.settings, DOWNLOAD, means.clock, means.metrics)
        self._offset = start
        self._stop = end
        self._since_failure = 0
        self._begun = bool(etag)
        self._ranged = True
        self._complete = False
        self._crc: int | None = None
        self._expected_crc: int | None = None
        self._signed: SignedUrl | None = None
        self._link: _Link | None = None
        self._skip = 0
        self._idle: asyncio.TimerHandle | None = None
        self._call: Call | None = None

    async def read(self) -> bytes:
        """Return the next bytes, about :data:`PIECE_BYTES` at most; at the end of the object always b"".

        Raises:
            AddressRefused: The URL or the address behind it is not allowed.
            SourceChanged: It is not the object that this began with, or there is no ETag to prove that it is.
            SourceRefused: It cannot be downloaded, or contradicts the server's headers.
            CircuitOpen: The host failed so often that it gets no request now.
            TransientError: The tries are used up.
        """
        self._wake()
        while not self._complete:
            failure: TransientError
            if self._link is None or self._signed is None:
                self._signed = await next_url(self._source, DOWNLOAD, self._means.clock)
            signed = self._signed
            call = self._call = self._call or self._means.circuit.call(host_of(signed.url.get_secret_value()))
            try:
                data = await self._read_once(signed)
            except SourceChanged:
                call.succeeded()
                raise
            except SourceRefused as refused:
                call.succeeded()
                if not await renewed(self._source, signed):
                    raise
                failure = as_transient(refused)
            except TransientError as error:
                call.note(error, answers=(NotFound,))
                failure = error
            else:
                if not data or self._since_failure >= _PROGRESS_BYTES:
                    call.succeeded()
                if data:
                    self._sleep()
                    return data
                continue
            self._disconnect()
            self._since_failure = 0
            await self._tries.after(failure, signed.deadline)
        return b""

    def seek(self, start: int) -> None:
        """Continue at another byte; only after a first read."""
        self._wake()
        self._disconnect()
        self._offset = start
        self._complete = False
        self._expected_crc = None

    def close(self) -> None:
        """Close the connection."""
        self._wake()
        self._disconnect()

    async def _read_once(self, signed: SignedUrl) -> bytes:
        link = self._link = self._link or await self._connect(signed)
        if link is None or self._offset == self._stop:
            return self._end() if link is not None else b""
        data = await translated(link.read(), DOWNLOAD)
        return self._pass(data) if data else self._end()

    def _pass(self, data: bytes) -> bytes:
        """Count received bytes and return the new ones."""
        if self._means.metrics is not None:
            self._means.metrics.transfer_bytes.labels("download").inc(len(data))
        dropped = min(self._skip, len(data))
        self._skip -= dropped
        data = data[dropped:]
        if self._stop is not None:
            data = data[: self._stop - self._offset]
        self._offset += len(data)
        self._since_failure += len(data)
        if self.size is not None and self._offset > self.size:
            raise SourceRefused(
                "source_length_wrong", "Host of input_file_url: it sent more bytes than it says the file has."
            )
        if self._since_failure >= _PROGRESS_BYTES:
            self._tries.progressed()
        if self._crc is not None:
            self._crc = zlib.crc32(data, self._crc)
        return data

    def _end(self) -> bytes:
        """Handle the end of one answer's body, which may come before the end of the object."""
        if self.size is None:
            self.size = self._offset
        if self._offset < (self.size if self._stop is None else self._stop):
            raise HostUnavailable("source_cut", "Host of input_file_url: the answer ended before the file did.")
        if self._stop is None and self._expected_crc is not None and self._crc != self._expected_crc:
            raise SourceRefused(
                "source_checksum_mismatch",
                "The file behind input_file_url does not have the CRC32 that its store states. Upload it again.",
            )
        self._complete = True
        self._disconnect()
        return b""

    async def _connect(self, signed: SignedUrl) -> _Link | None:
        """Return a connection that delivers the bytes from the offset on, or None if none are left."""
        if self._offset and not self.etag:
            raise _changed("without an ETag, nothing proves that the object is still the same")
        means = self._means
        url = signed.url.get_secret_value()
        headers = self._headers()
        pace = Pace(means.settings, (signed.deadline - means.clock()).total_seconds())
        response = await translated(self._ask(request_url(url), headers, pace), DOWNLOAD)
        try:
            if response.status == HTTPStatus.OK:
                self._accept_whole(response)
            elif response.status == HTTPStatus.PARTIAL_CONTENT and "Range" in headers:
                self._accept_range(response)
            else:
                await self._refuse(response, url)
                response.close()
                return None
        except BaseException:
            response.close()
            raise
        return _Link(response, pace)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.etag:
            headers["If-Match"] = self.etag
        if self._ranged and self._stop is not None:
            headers["Range"] = f"bytes={self._offset}-{self._stop - 1}"
        elif self._ranged and self._offset:
            headers["Range"] = f"bytes={self._offset}-"
        return headers

    async def _ask(self, url: yarl.URL, headers: Mapping[str, str], pace: Pace) -> aiohttp.ClientResponse:
        settings = self._means.settings
        # the socket's own timeouts restart with every byte, and a header can arrive byte by byte
        latest = pace.within(settings.connect_timeout_seconds + settings.read_timeout_seconds)
        async with asyncio.timeout_at(latest):
            return await self._means.session.get(
                url, headers=headers, allow_redirects=False, timeout=settings.client_timeout
            )

    def _accept_whole(self, response: aiohttp.ClientResponse) -> None:
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if response.content_length is None and not chunked:
            raise SourceRefused(
                "source_length_missing",
                "input_file_url: the host does not send the length of the file, so a cut file could not be noticed.",
            )
        self._accept(response, response.content_length)
        self.ranged = False
        self._skip = self._offset
        if self._offset == 0:
            self._expected_crc = stated_crc(response.headers)
            self._crc = None if self._expected_crc is None else 0

    def _accept_range(self, response: aiohttp.ClientResponse) -> None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != self._offset:
            self._ranged = False
            raise TransientError("source_range_wrong", "Host of input_file_url: it sent other bytes than asked for.")
        self._accept(response, int(found[3]))
        self.ranged = True
        self._skip = 0

    def _accept(self, response: aiohttp.ClientResponse, size: int | None) -> None:
        """Compare an answer with the earlier ones, or accept it as the first."""
        etag = _strong_etag(response.headers)
        if self._begun and etag != self.etag:
            raise _changed("its ETag has changed")
        known = self.size is not None
        if (known and size != self.size) or (size is not None and size < self._offset):
            raise _changed("its size has changed")
        if not self._begun or not known:
            self.size = size
        self.etag = etag
        self.content_encoding = self.content_encoding or response.headers.get("Content-Encoding", "")
        self._begun = True

    async def _refuse(self, response: aiohttp.ClientResponse, url: str) -> None:
        """Raise the error for an answer; return if the answer means that all bytes were delivered before."""
        clock = self._means.clock
        refusal = await refusal_of(response, clock)
        if refusal.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and refusal.object_size == self._offset:
            if self.size not in {None, self._offset}:
                raise _changed("its size has changed")
            self.size = self._offset
            self._complete = True
            return
        raise failure_of(refusal, DOWNLOAD, url, clock())

    def _sleep(self) -> None:
        """Close the connection later, unless the reader continues: a slow reader must not hold it."""
        if self._link is not None and self.etag and self._ranged:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._means.settings.idle_close_seconds, self._disconnect)

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.response.close()
            self._link = None
        if self._call is not None:
            self._call.close()
            self._call = None


def _changed(how: str) -> SourceChanged:
    return SourceChanged("source_changed", f"The file behind input_file_url may have been replaced: {how}.")


def _strong_etag(headers: Mapping[str, str]) -> str:
    """Return the ETag, or nothing for a weak one, because If-Match never matches it."""
    etag = headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag
