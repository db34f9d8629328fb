"""The HTTP server of the ingress and of the management port. Needs aiohttp, so a subscriber must not import it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter


class OtherVersion(web.BaseRequest):
    """A request of a version other than HTTP/1.1 and HTTP/1.0, or without a version. Such a request is malformed."""


class HttpServer(web.Server):
    """The library's server. It turns a request of an unsupported version into an :class:`OtherVersion`.

    Args:
        handler: Returns the answer to a request.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, request_factory=self._request, loop=asyncio.get_running_loop())

    def _request(
        self,
        message: Any,
        content: StreamReader,
        connection: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Return a request. The answer repeats its version, so an unsupported version is changed to HTTP/1.0."""
        if message.version in (HttpVersion11, HttpVersion10):
            return web.BaseRequest(message, content, connection, writer, task, self._loop)
        return OtherVersion(message._replace(version=HttpVersion10), content, connection, writer, task, self._loop)
