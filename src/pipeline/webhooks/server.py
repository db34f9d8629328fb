"""The HTTP server: it listens, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog
from aiohttp import web

from pipeline.errors import FatalError
from pipeline.webhooks.connections import Connections, connections_within
from pipeline.webhooks.handler import Ingress
from pipeline.webhooks.refusals import RefusalCounts
from pipeline.webhooks.settings import IngressSettings

log = structlog.get_logger(__name__)

_LINGER_SECONDS: Final = 2.0
"""How long the server continues to read a refused body, so that the sender can read the answer."""

_BACKLOG: Final = 1024
"""Backlog of connections while the process is busy. Linux limits it to net.core.somaxconn (4,096)."""

_CLOSE_SECONDS: Final = 0.25
"""Seconds to write the last answers, after all requests were answered or cut."""


class IngressServer:
    """Serves an :class:`Ingress` until it is stopped.

    Call ``start``. On SIGTERM, call ``begin_drain``, wait ``settings.drain_seconds``, call ``stop``. Use it only once.

    Args:
        ingress: Answers the requests.
        refusals: Flushed regularly while serving, and once more at the end.
        settings: Address and idle timeout.
        shares_port: Whether other processes of the same user may listen on its port (``SO_REUSEPORT``).
    """

    def __init__(
        self, ingress: Ingress, refusals: RefusalCounts, settings: IngressSettings, *, shares_port: bool = False
    ) -> None:
        self._shares_port = shares_port
        self._ingress = ingress
        self._refusals = refusals
        self._settings = settings
        self._runner: web.ServerRunner | None = None
        self._url: str | None = None
        self._server: Connections | None = None
        self._flusher: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """``http://host:port`` with the actual port; also available after a stop.

        Raises:
            RuntimeError: The server is not started.
        """
        if self._url is None:
            raise RuntimeError("The ingress is not started")
        return self._url

    @property
    def ready(self) -> bool:
        """Whether it accepts new requests: it is started, not draining, and no background task has failed."""
        return self._flusher is not None and not self._flusher.done() and not self._ingress.draining

    async def start(self) -> None:
        """Start to listen.

        Raises:
            FatalError: It cannot listen on the address.
        """
        self._server = Connections(
            self._ingress,
            connections_within(self._settings.max_connections),
            keepalive_timeout=self._settings.idle_timeout_seconds,
            lingering_time=_LINGER_SECONDS,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_CLOSE_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(
                self._runner,
                self._settings.host,
                self._settings.port,
                backlog=_BACKLOG,
                reuse_port=self._shares_port or None,
            ).start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            address = f"{self._settings.host}:{self._settings.port}"
            raise FatalError(
                "ingress_address", f"Cannot listen on {address} (ingress.host, ingress.port): {error.strerror}"
            ) from error
        host, port = self._runner.addresses[0][:2]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._flusher = asyncio.create_task(self._refusals.run(), name="ingress-refusals")

    async def wait(self) -> None:
        """Wait until the server has stopped. Run it in the caller's task group.

        Raises:
            Exception: The background task failed unexpectedly; the process must stop.
        """
        if self._flusher is not None:
            await asyncio.wait([self._flusher])
            if not self._flusher.cancelled():
                self._flusher.result()

    def begin_drain(self) -> None:
        """Report not ready, but continue to serve; each answer closes its connection."""
        self._ingress.draining = True
        log.info("ingress_draining")

    async def stop(self, grace: float) -> None:
        """Close the socket, let requests in work finish for ``grace`` seconds, cut the rest, flush the counts.

        A cut request gets no answer, so its sender repeats it. A second call does nothing.
        """
        runner, self._runner = self._runner, None
        if runner is None or self._server is None or self._flusher is None:
            return
        self._ingress.draining = True
        for site in runner.sites:
            await site.stop()
        self._server.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._ingress.limits.idle()
        await runner.cleanup()
        self._ingress.refusal_log.flush()
        if self._flusher.cancel():  # otherwise it has failed, and wait() has raised its error
            await asyncio.wait([self._flusher])
            await self._refusals.flush()
        log.info("ingress_stopped")
