"""An ingress on a free port, for tests of the ingress and of programs that send to one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from pipeline.contracts import Topic, TopicName
from pipeline.kafka.protocols import Publisher
from pipeline.observability import Metrics
from pipeline.outbound import HostRules
from pipeline.webhooks.capture import Capture
from pipeline.webhooks.handler import Ingress
from pipeline.webhooks.hot_events import HotEvents
from pipeline.webhooks.refusals import RefusalCounts
from pipeline.webhooks.server import IngressServer
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.sources import EcsSource, SchemeVerifier, SuccessStatus, WeavrSource, WeavrVerifier
from pipeline.webhooks.sources.settings import WeavrOptions
from pipeline.webhooks.verification import Secret, SharedSecretSpec, scheme_of
from pipeline.webhooks.webhook import Webhook

SECRET = "synthetic-webhook-secret"  # noqa: S105 - of tests only
API_KEY = "synthetic-api-key-1"
SECRET_HEADERS = {"X-Webhook-Secret": SECRET, "Content-Type": "application/json"}

_HOSTS = HostRules(input=("*.example.com",), result=("*.example.com",), callback=("ecs.example.com",))


def ecs_webhook(
    integration: str = "acme", *, success_status: SuccessStatus = 202, hosts: HostRules = _HOSTS
) -> Webhook:
    """Return an ECS webhook whose shared secret is :data:`SECRET`, for hosts below example.com unless given."""
    spec = SharedSecretSpec(scheme="shared-secret")
    return Webhook(
        integration=integration,
        kind="ecs",
        path=f"/webhooks/ecs/{integration}",
        verifier=SchemeVerifier(scheme_of(spec, [Secret("current", SecretStr(SECRET))])),
        source=EcsSource(integration, hosts, success_status),
    )


def weavr_webhook(integration: str = "acme", **options: Any) -> Webhook:
    """Return a Weavr webhook whose API key is :data:`API_KEY`.

    Args:
        integration: Its name.
        **options: Settings of its table, apart from name, path and secrets.
    """
    settings = WeavrOptions.model_validate(options)
    path, secrets = f"/webhooks/weavr/{integration}", [Secret("oldest-client", SecretStr(API_KEY))]
    return Webhook(
        integration=integration,
        kind="weavr",
        path=path,
        verifier=WeavrVerifier(settings, secrets),
        source=WeavrSource(integration, settings),
        hot=HotEvents(integration, path, settings, secrets),
    )


@dataclass(frozen=True, slots=True)
class Serving:
    """A running ingress and its parts."""

    server: IngressServer
    ingress: Ingress
    refusals: RefusalCounts
    metrics: Metrics


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def serving(
    publisher: Publisher,
    *,
    webhooks: Sequence[Webhook] | None = None,
    settings: IngressSettings | None = None,
    clock: Callable[[], datetime] = _now,
    capture: Capture | None = None,
    refusals_interval: float = 60.0,
    audited_topics: Collection[TopicName] = (Topic.BATCH_REQUESTED,),
    new_hex: Callable[[int], str] | None = None,
) -> AsyncIterator[Serving]:
    """Serve on a free port of the loopback interface while the block runs; then stop without grace."""
    settings = settings or IngressSettings(port=0)
    metrics = Metrics()
    refusals = RefusalCounts(
        publisher,
        clock=clock,
        instance="test",
        interval=refusals_interval,
        deadline=settings.deadline_seconds,
    )
    ingress = Ingress(
        webhooks=[ecs_webhook()] if webhooks is None else webhooks,
        publisher=publisher,
        settings=settings,
        metrics=metrics,
        refusals=refusals,
        clock=clock,
        capture=capture,
        audited_topics=audited_topics,
        new_hex=new_hex,
    )
    server = IngressServer(ingress, refusals, settings)
    await server.start()
    try:
        yield Serving(server, ingress, refusals, metrics)
    finally:
        await server.stop(0)
