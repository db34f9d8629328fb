"""The management server: probes for Kubernetes and metrics for Prometheus, on a port of their own.

It needs aiohttp, so a subscriber must not import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from pipeline.errors import FatalError
from pipeline.observability.health import Check
from pipeline.observability.masking import mask_text
from pipeline.observability.settings import ManagementSettings

_DRAIN_SECONDS: Final = 1.0


class ManagementServer:
    """Serves ``/healthz/live``, ``/healthz/ready`` and ``/metrics``.

    Both probes answer 200, or 503 when one of their checks is not ok, with each check by name in JSON. Without checks
    they answer 200. ``ready`` shows alarms too, which do not change its status. Use it as an async context manager;
    with port 0 ``url`` tells which port it got.
    """

    def __init__(self, settings: ManagementSettings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}
        self._alarms: dict[str, Check] = {}
        self._runner: web.AppRunner | None = None

    def add_liveness(self, name: str, check: Check) -> None:
        """Restart this process when the check fails: for a loop that no longer turns, nothing else."""
        _add(self._live, name, check)

    def add_readiness(self, name: str, check: Check) -> None:
        """Send no traffic while the check fails, and show why."""
        _add(self._ready, name, check)

    def add_alarm(self, name: str, check: Check) -> None:
        """Show a check beside those of readiness: something is wrong that only a part of the traffic needs."""
        _add(self._alarms, name, check)

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
        app = web.Application()
        app.router.add_get("/healthz/live", self._answer_live)
        app.router.add_get("/healthz/ready", self._answer_ready)
        app.router.add_get("/metrics", self._answer_metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_DRAIN_SECONDS)
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

    async def _answer_live(self, _request: web.Request) -> web.Response:
        return _report(self._live, {}, "live")

    async def _answer_ready(self, _request: web.Request) -> web.Response:
        return _report(self._ready, self._alarms, "ready")

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


def _add(checks: dict[str, Check], name: str, check: Check) -> None:
    if name in checks:
        raise ValueError(f"a check named {name} is registered already")
    checks[name] = check


def _report(checks: Mapping[str, Check], alarms: Mapping[str, Check], word: str) -> web.Response:
    results = _shown(checks)
    good = all(result["ok"] for result in results.values())
    body = {"status": word if good else f"not {word}", "checks": results} | (
        {"alarms": _shown(alarms)} if alarms else {}
    )
    return web.Response(
        text=json.dumps(body),
        status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _shown(checks: Mapping[str, Check]) -> dict[str, dict[str, bool | str]]:
    results = {name: check() for name, check in checks.items()}
    return {name: {"ok": health.ok, "message": mask_text(health.message)} for name, health in results.items()}
