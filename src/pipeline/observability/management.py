"""The management server: probes for Kubernetes and metrics for Prometheus, on a port of their own.

It needs aiohttp, so a subscriber must not import it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from pipeline.errors import FatalError
from pipeline.http_server import HttpServer, OtherVersion
from pipeline.observability.health import Checks, Results
from pipeline.observability.settings import ManagementSettings

log = structlog.get_logger(__name__)

_DRAIN_SECONDS: Final = 1.0
_SERVER: Final = "card-pipeline"
_PATHS: Final = frozenset({"/healthz/live", "/healthz/ready", "/metrics"})
_METHODS: Final = ("GET", "HEAD")
_CACHE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.02
"""Pause between two answers. Fifty answers a second are far more than the scrapers of a cluster need."""
_LONGEST_WAIT_SECONDS: Final = 5.0
_RETRY: Final = {"Retry-After": "5"}
_VERSION: Final = re.compile(r"version=([^;]*)")
Refresh = Callable[[], Awaitable[None]]
_VERSIONS: Final = frozenset({"0.0.1", "0.0.4", "1.0.0"})
"""Known versions of the formats of Prometheus and OpenMetrics."""


class ManagementServer(Checks):
    """Serves ``/healthz/live``, ``/healthz/ready`` and ``/metrics``.

    Each probe answers 200, or 503 if one of its checks fails, with the result of each check in JSON. Without checks it
    answers 200. ``ready`` also shows alarms, which do not change its status. The metrics are at most a second old.
    Use it as an async context manager. With port 0, ``url`` has the port that the system chose.

    Args:
        settings: Address and port.
        registry: The metrics.
        refresh: Awaited before the metrics are rendered, for a registry that gets them from other processes.
    """

    def __init__(
        self, settings: ManagementSettings, registry: CollectorRegistry, refresh: Refresh | None = None
    ) -> None:
        super().__init__()
        self._settings = settings
        self._metrics = _CachedMetrics(registry, refresh)
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Base URL as bound, without a slash at the end."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the management server is not started")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        """Bind and serve.

        Raises:
            FatalError: The address cannot be bound.
        """
        runner = web.ServerRunner(_Server(self._answer), shutdown_timeout=_DRAIN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._settings.host, self._settings.port).start()
        except OSError as error:
            await runner.cleanup()
            address = f"{self._settings.host}:{self._settings.port}"
            raise FatalError(
                "management_address",
                f"Cannot listen on {address} (management.host, management.port): {error.strerror}. Several processes "
                "on one machine need a port each; PIPELINE_MANAGEMENT__PORT=0 takes a free one",
            ) from error
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving, at once."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if isinstance(request, OtherVersion):
            response = web.Response(status=HTTPStatus.BAD_REQUEST, text="Bad Request")
        elif request.path not in _PATHS:
            response = web.Response(status=HTTPStatus.NOT_FOUND, text="Not found")
        elif request.method not in _METHODS:
            allowed = {"Allow": ", ".join(_METHODS)}
            response = web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, text="Method not allowed", headers=allowed)
        elif request.path == "/metrics":
            response = await self._metrics.answer(request.headers.get("Accept", ""))
        elif request.path == "/healthz/live":
            response = _report(self.liveness(), {}, "live")
        else:
            response = _report(self.readiness(), self.alarms(), "ready")
        response.headers["Server"] = _SERVER  # otherwise the library sends its version and Python's
        return response


class _CachedMetrics:
    """The metrics as text, rendered at most once a second, so that many scrapers cannot slow the process.

    It sends one answer at a time, with a short pause between two, so that scrapers wait instead of webhooks.
    """

    def __init__(self, registry: CollectorRegistry, refresh: Refresh | None) -> None:
        self._registry = registry
        self._refresh = refresh
        self._rendered: dict[str, tuple[float, bytes]] = {}
        self._next_at = 0.0

    async def answer(self, accept: str) -> web.Response:
        """Return the metrics in the format that the header requests; 503 if too many scrapers are waiting."""
        now = time.monotonic()
        wait = self._next_at - now
        if wait > _LONGEST_WAIT_SECONDS:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="Too many scrapers", headers=_RETRY)
        self._next_at = max(now, self._next_at) + _PAUSE_SECONDS
        if wait > 0:
            await asyncio.sleep(wait)
        encode, content_type = choose_encoder(_understood(accept))
        at, body = self._rendered.get(content_type, (-_CACHE_SECONDS, b""))
        if time.monotonic() - at >= _CACHE_SECONDS:
            if self._refresh is not None:
                await self._refresh()
            body = encode(self._registry)
            self._rendered[content_type] = (time.monotonic(), body)
        return web.Response(body=body, headers={"Content-Type": content_type})


def _understood(accept: str) -> str:
    """Return the header without formats of unknown versions, because the library would claim to render any version."""
    return ",".join(
        one for one in accept.split(",") if all(found.strip() in _VERSIONS for found in _VERSION.findall(one))
    )


class _Server(HttpServer):
    """A server whose answers never repeat received bytes."""

    def __call__(self) -> web.RequestHandler:
        """Return the handler of a new connection."""
        options: dict[str, Any] = {"access_log": None}
        return _Connection(self, loop=asyncio.get_running_loop(), **options)


class _Connection(web.RequestHandler):
    """One connection. It replaces the library's answer to a malformed request, which repeats the received bytes."""

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - the library's signature; must not be shown
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - holds the received bytes
    ) -> web.StreamResponse:
        """Return the answer to a request that cannot be parsed, or whose check raised an unexpected error."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("management_answer_failed", error=type(exc).__name__)
        response = web.Response(status=status, text=HTTPStatus(status).phrase, headers={"Server": _SERVER})
        response.force_close()
        return response

    def log_exception(self, *_: Any, **__: Any) -> None:
        """Log nothing, because the library would log received bytes."""


def _report(results: Results, alarms: Results, word: str) -> web.Response:
    good = all(result["ok"] for result in results.values())
    body = {"status": word if good else f"not {word}", "checks": results} | ({"alarms": alarms} if alarms else {})
    return web.Response(
        text=json.dumps(body),
        status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
