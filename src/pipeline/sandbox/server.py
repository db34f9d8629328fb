"""The sandbox server: ECS, its object store, the card API and the control API on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from pipeline.sandbox.card_api import CARDS_PATH, CardApi
from pipeline.sandbox.control import Control
from pipeline.sandbox.disk import Disk
from pipeline.sandbox.ecs import TOKEN_PATH, Ecs
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.object_store import ObjectStore
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.tokens import YEAR, Tokens
from pipeline.sandbox.webhook import Webhook

_MAX_BODY = 1 << 20


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Sandbox:
    """A running sandbox, while it is entered.

    Attributes:
        settings: The given settings.
        faults: The faults that it simulates.
        store: The object store.
        ecs: Jobs and callbacks.
        card_api: The card API.
    """

    def __init__(self, settings: SandboxSettings, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.faults = Faults()
        self._clock = clock
        self._tokens = Tokens(settings, clock=clock)
        self._stack = AsyncExitStack()
        self._url = ""
        disk = Disk(settings.data_dir / "objects")
        self.store = ObjectStore(settings.object_store, disk, faults=self.faults, clock=clock)
        self.card_api = CardApi(settings.card_api, faults=self.faults)
        self.ecs: Ecs

    async def __aenter__(self) -> Self:
        """Start to listen. Raises OSError if the port is taken."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            webhook = Webhook(self.settings, session, clock=self._clock)
            self.ecs = Ecs(
                self.settings,
                store=self.store,
                tokens=self._tokens,
                webhook=webhook,
                faults=self.faults,
                clock=self._clock,
            )
            runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0, lingering_time=2.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, self.settings.host, self.settings.port).start()
            port: int = runner.addresses[0][1]
            host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
            self._url = f"http://{host}:{port}"
            self.ecs.base_url = (self.settings.public_url or self._url).rstrip("/")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and close all open connections."""
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return self._url

    @property
    def control_url(self) -> str:
        """Base of the control API."""
        return f"{self.url}/control"

    @property
    def cards_url(self) -> str:
        """URL of the card API, which loads one card for each request."""
        return f"{self.ecs.base_url}{CARDS_PATH}"

    @property
    def token_url(self) -> str:
        """URL of ECS's OAuth token endpoint."""
        return f"{self.ecs.base_url}{TOKEN_PATH}"

    def token(self, *, lifetime: timedelta = YEAR, claims: Mapping[str, object] | None = None) -> str:
        """Return a callback token of the partner. Use ``claims`` to make an invalid one."""
        return self._tokens.mint(self.settings.partner_guid, lifetime=lifetime, claims=claims)

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_BODY)
        control = Control(self.settings, ecs=self.ecs, card_api=self.card_api, tokens=self._tokens, faults=self.faults)
        for part in (self.ecs, self.card_api, control, self.store):
            application.add_routes(part.routes())
        return application


async def serve(
    settings: SandboxSettings, *, stop: asyncio.Event, on_ready: Callable[[Mapping[str, object]], None]
) -> None:
    """Run a sandbox until ``stop`` is set.

    ``on_ready`` is called once, with the document that the CLI prints as its ready line:
    ``{"ready": "sandbox", "url": ..., "control_url": ...}``.

    Raises:
        OSError: The port is taken, or the folder cannot be written.
    """
    async with Sandbox(settings) as sandbox:
        on_ready({"ready": "sandbox", "url": sandbox.url, "control_url": sandbox.control_url})
        await stop.wait()
