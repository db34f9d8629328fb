"""Connections of the HTTP server. Bounds their number and the cost of chunked bodies; answers repeat no input."""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus
from itertools import chain
from typing import Any, Final

import structlog
from aiohttp import StreamReader, web

from pipeline.http_server import HttpServer
from pipeline.webhooks.answers import Answer
from pipeline.webhooks.handler import Ingress
from pipeline.webhooks.hot_path import Accepted

log = structlog.get_logger(__name__)

_OTHER_FILES: Final = 256
"""Open files that a process needs besides the connections of senders: connections to brokers, logs, libraries."""
_LEAST_CONNECTIONS: Final = 16
_MOST_FRAMING: Final = 64 << 10
"""Allowed overhead of a chunked body in bytes; two more are allowed for each byte of the body."""

_MOST_HEAD: Final = 64 << 10
"""Maximum size of an incomplete head in bytes, since each connection may keep one in memory."""

_UNREAD_SECONDS: Final = 10.0
"""How long a sender may block our writing by not reading its answers, in seconds."""


def connections_within(wanted: int) -> int:
    """Return how many connections the limit of open files (``ulimit -n``) allows; log a warning if they are fewer.

    It raises the soft limit if needed.
    """
    needed = wanted + _OTHER_FILES
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, needed), most))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed = max(most - _OTHER_FILES, _LEAST_CONNECTIONS)
    log.warning("open_files_limit", limit=most, needed=needed, connections=allowed)
    return allowed


class Connections(HttpServer):
    """The library's server with a bound. At the bound, it closes another connection for each new one.

    It closes first a connection whose sender has several requests in line or does not read its answers, then the oldest
    connection without a complete request, then the one that was unused for the longest time. It never cuts a request
    that waits for its body or for the broker.

    Args:
        ingress: Answers the requests.
        most: The maximum number of connections.
        **options: Options of each connection; see the library's ``RequestHandler``.
    """

    def __init__(self, ingress: Ingress, most: int, **options: Any) -> None:
        super().__init__(ingress.answer)
        self._ingress = ingress
        self._most = most
        self._options = options
        self._fresh: dict[_Connection, asyncio.Transport] = {}
        self._used: dict[_Connection, asyncio.Transport] = {}

    def __call__(self) -> web.RequestHandler:
        """Return the handler of a new connection."""
        return _Connection(
            self, self._ingress, asyncio.get_running_loop(), access_log=None, auto_decompress=False, **self._options
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a new connection; if there are too many, close another one, or this one if all others are in work."""
        super().connection_made(handler, transport)
        assert isinstance(handler, _Connection)  # noqa: S101 - made by __call__
        if len(self._fresh) + len(self._used) >= self._most:
            self._ingress.metrics.ingress_connections_closed.inc()
            if not self._closed_one():
                self._loop.call_soon(transport.abort)  # after the library has started to handle it
                return
        self._fresh[handler] = transport
        self._show()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Remove a connection from the count."""
        super().connection_lost(handler, exc)
        self.forget(handler)

    def forget(self, handler: Any) -> None:
        """Remove a connection from the count."""
        self._fresh.pop(handler, None)
        self._used.pop(handler, None)
        self._show()

    def used(self, connection: _Connection) -> None:
        """Mark a connection as just used."""
        transport = self._fresh.pop(connection, None) or self._used.pop(connection, None)
        if transport is not None:
            self._used[connection] = transport

    def _show(self) -> None:
        self._ingress.metrics.ingress_connections.set(len(self._fresh) + len(self._used))

    def _closed_one(self) -> bool:
        """Close the least needed connection, and return whether there was one to close."""
        ordered = [*self._fresh.items(), *self._used.items()]
        greedy = (item for item in ordered if item[0].greedy)
        idle = (item for item in ordered if item[0].idle)
        connection, transport = next(chain(greedy, idle), (None, None))
        if transport is None:
            return False
        self.forget(connection)
        transport.abort()  # an orderly close would wait forever for a sender that does not read
        return True


class _Connection(web.RequestHandler):
    """One connection. It replaces the library's answer to a malformed request, which repeats the received bytes."""

    __slots__ = ("_answered", "_connections", "_content", "_half_closed", "_ingress", "_unread", "_wire_bytes")

    def __init__(
        self, connections: Connections, ingress: Ingress, loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:
        super().__init__(connections, loop=loop, **options)
        self._connections = connections
        self._ingress = ingress
        self._answered = 0
        self._content: StreamReader | None = None
        self._half_closed = False
        self._unread: asyncio.TimerHandle | None = None
        self._wire_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, or for the end of an already answered one."""
        return self._answered == self._request_count

    @property
    def greedy(self) -> bool:
        """Whether, with no request in work, its sender has several requests in line or leaves answers unread."""
        return self._current_request is None and (self._paused or len(self._messages) > 1)

    def data_received(self, data: bytes) -> None:
        """Parse received data. Refuse a head that is too large, and a body whose chunk overhead is too large."""
        before, requests = self._content, self._request_count
        super().data_received(data)
        if self._request_count > requests:
            self._content = self._messages[-1][1]
            if before is not None and not before.is_eof() and before is not self._content:
                before.set_exception(
                    web.RequestPayloadError()
                )  # its chunks are broken, but the library would let it wait
            self._wire_bytes = 0  # the bytes so far may be heads
            return
        content = self._content
        if content is not None and content.is_eof():
            self._content = None
            self._wire_bytes = 0  # the bytes so far may be a body
            return
        self._wire_bytes += len(data)
        if content is None:
            if self._wire_bytes > _MOST_HEAD:
                super().data_received(b"\0")  # the parser refuses it anywhere in a head
            return
        if content.exception() is None and self._wire_bytes > 3 * content.total_bytes + _MOST_FRAMING:
            content.set_exception(web.RequestPayloadError())
            self.close()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Continue to read, if reading was paused. The library calls this for each body, and parses nothing again."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's signature is wider than the library's
        """Answer the remaining requests of a sender that has closed its side, then close our side."""
        if self.idle:
            return False
        self._half_closed = True
        if self._content is not None and not self._content.is_eof():
            self._content.set_exception(web.RequestPayloadError())
        return True

    def pause_writing(self) -> None:
        """Give the sender some time to read its answers, then close the connection."""
        super().pause_writing()
        if self.transport is not None:
            self._unread = self._loop.call_later(_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Continue to answer, since the sender reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        if self._unread is not None:
            self._unread.cancel()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer. It is the last one if the sender has closed its side."""
        if isinstance(resp, Accepted):
            if not self._half_closed:
                return await self._send_accepted(request, resp)
            resp = resp.as_plain()
        if self._half_closed and not self._messages:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        self._connections.used(self)
        return finished

    async def _send_accepted(self, request: web.BaseRequest, answer: Accepted) -> tuple[web.StreamResponse, bool]:
        """Send an answer of the hot path. It bypasses the library, which would render the same bytes each time."""
        reset = self.transport is None or self.transport.is_closing()
        if self.transport is not None and not reset:
            self.transport.write(answer.as_bytes())
            if self.writing_paused:
                try:
                    await request.writer.drain()
                except ConnectionError:
                    reset = True
        self._answered += 1
        self._connections.used(self)
        return answer, reset

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - the library's signature; must not be shown
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - holds the received bytes
    ) -> web.StreamResponse:
        """Return the answer to a request that cannot be parsed, or whose handling failed."""
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._ingress.unparsed(Answer.MALFORMED)
        log.error("answer_failed", error=type(exc).__name__)
        return self._ingress.unparsed(Answer.UNEXPECTED)

    def log_exception(self, *_: Any, exc_info: BaseException | None = None, **__: Any) -> None:
        """Log without received data. The library would log a traceback with the refused bytes."""
        log.debug("request_cut_off", error=type(exc_info).__name__)
