"""From settings to the webhooks that the ingress serves, and that commands look at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from pipeline.ingress import Source
from pipeline.providers import (
    Delivery,
    EcsProvider,
    SchemeVerifier,
    Verified,
    Verifier,
    WeavrProvider,
    WeavrVerifier,
)
from pipeline.settings import EcsIntegration, Settings, WeavrIntegration
from pipeline.signatures import Reason, SignatureRefused, scheme_of


class _Unable:
    """The verifier of whoever has no secrets: refuses everything."""

    stored_headers: Final = frozenset[str]()

    def verify(self, _delivery: Delivery, _now: datetime) -> Verified:
        """See Verifier."""
        raise SignatureRefused(Reason.NO_ACTIVE_SECRET, "The secrets of this source were not read")


_UNABLE: Final = _Unable()

_Opening = Callable[[Callable[[], Verifier]], Verifier]


def open_sources(settings: Settings, *, secrets: bool = True) -> list[Source]:
    """Return all configured webhooks, in the order of the settings.

    Args:
        settings: As loaded.
        secrets: Whether to read the webhooks' secret files; without them nothing is verified, for commands that only
            ask what a delivery is.

    Raises:
        SecretUnreadable: A file went away since the settings were loaded.
    """

    def verifier(make: Callable[[], Verifier]) -> Verifier:
        return make() if secrets else _UNABLE

    ecs = [_ecs(one, verifier) for one in settings.ecs.values()]
    return [*ecs, *[_weavr(one, verifier) for one in settings.weavr.values()]]


def _ecs(settings: EcsIntegration, verifier: _Opening) -> Source:
    return Source(
        integration=settings.name,
        kind="ecs",
        path=settings.webhook_path,
        verifier=verifier(lambda: SchemeVerifier(scheme_of(settings.webhook, settings.webhook_secrets()))),
        provider=EcsProvider(settings.name, settings.hosts, settings.success_status),
    )


def _weavr(settings: WeavrIntegration, verifier: _Opening) -> Source:
    return Source(
        integration=settings.name,
        kind="weavr",
        path=settings.webhook_path,
        verifier=verifier(lambda: WeavrVerifier(settings, settings.webhook_secrets())),
        provider=WeavrProvider(settings.name, settings),
    )
