"""Makes the ingress from its settings."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.app.parts import Part, Service, Shared
from pipeline.app.sources import open_webhooks
from pipeline.errors import most_severe
from pipeline.observability import Check, Health
from pipeline.webhooks.capture import Capture
from pipeline.webhooks.handler import Ingress
from pipeline.webhooks.refusals import RefusalCounts
from pipeline.webhooks.server import IngressServer
from pipeline.webhooks.settings import IngressSettings


def make_ingress(shared: Shared, *, shares_port: bool = False) -> Part:
    """Return the web server with all configured webhooks.

    Args:
        shared: The objects that all parts of the process share.
        shares_port: Whether other processes may listen on the same port.
    """
    settings = shared.settings
    refusals = RefusalCounts(
        shared.publisher,
        clock=shared.ports.now,
        instance=secrets.token_hex(8),
        deadline=settings.ingress.deadline_seconds,
    )
    folder = settings.ingress.capture_dir
    capture = Capture(folder, clock=shared.ports.now) if folder else None
    ingress = Ingress(
        webhooks=open_webhooks(settings, clock=shared.ports.now),
        publisher=shared.publisher,
        settings=settings.ingress,
        metrics=shared.metrics,
        refusals=refusals,
        clock=shared.ports.now,
        capture=capture,
        audited_topics=settings.audited_topics,
    )
    server = IngressServer(ingress, refusals, settings.ingress, shares_port=shares_port)
    return Web(server, settings.ingress, lambda: shared.publisher.problem is None, [capture.run] if capture else [])


@dataclass
class Web:
    """The ingress as a part of a process, with its services."""

    server: IngressServer
    settings: IngressSettings
    connected: Callable[[], bool]
    services: Sequence[Service] = ()
    name: str = "ingress"
    alarms: Mapping[str, Check] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL at which it receives webhooks."""
        return self.server.url

    @property
    def started(self) -> bool:
        """Whether the server serves requests and the broker is connected."""
        return self.server.ready and self.connected()

    @property
    def alive(self) -> Check:
        """A check that always passes: a process that answers is alive."""
        return lambda: Health(ok=True)

    @property
    def checks(self) -> Mapping[str, Check]:
        """Whether it listens and is not draining."""
        return {
            "ingress": lambda: Health(ok=self.server.ready, message="serving" if self.server.ready else "not serving")
        }

    async def serve(self) -> None:
        """Serve until stopped; the services end with the server."""
        await self.server.start()
        try:
            async with asyncio.TaskGroup() as group:
                services = [group.create_task(service()) for service in self.services]
                await self.server.wait()
                for service in services:
                    service.cancel()
        except BaseExceptionGroup as errors:
            raise most_severe(errors) from None

    async def stop(self) -> None:
        """Report "not ready", keep serving until proxies have noticed it, then finish the requests in work."""
        self.server.begin_drain()
        await asyncio.sleep(self.settings.drain_seconds)
        await self.server.stop(self.settings.stop_grace_seconds)
