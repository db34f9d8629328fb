"""Keeping an eye on the token when no callback is sent: readiness and metric."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import datetime
from typing import Final, NoReturn

import structlog

from pipeline.jobs.ecs.tokens import TokenProvider
from pipeline.observability import Health, Metrics
from pipeline.outbound import Token, TokenUnavailable

log = structlog.get_logger(__name__)

INTERVAL: Final = 30.0
"""Seconds between two looks: a token file must be read at least once a minute."""


class TokenWatch:
    """Looks at one integration's token twice a minute; answers readiness checks and the metric from what it saw last.

    For the confirm component only: the ingress never needs the token and must not depend on it.
    """

    def __init__(
        self, provider: TokenProvider, *, integration: str, metrics: Metrics, clock: Callable[[], datetime]
    ) -> None:
        self._provider = provider
        self._integration = integration
        self._clock = clock
        self._token: Token | None = None
        self._problem = "not looked at yet"
        self._was_ok: bool | None = None
        metrics.token_seconds_left.labels(integration).set_function(self.seconds_left)

    async def run(self, *, interval: float = INTERVAL) -> NoReturn:
        """Look, every ``interval`` seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(interval)

    async def look(self) -> None:
        """Look once; log when the token became unusable or usable again."""
        try:
            self._token = await self._provider.token()
        except TokenUnavailable as error:
            self._token, self._problem = None, error.message
        health = self.check()
        if health.ok is not self._was_ok:
            self._was_ok = health.ok
            level = log.info if health.ok else log.error
            level("token_health_changed", integration=self._integration, ok=health.ok, message=health.message)

    def check(self) -> Health:
        """Return whether callbacks can be authenticated; an expired token cannot, an unknown expiry can."""
        if self._token is None:
            return Health(ok=False, message=f"no callback token: {self._problem}")
        expiry = self._token.expires_at
        if expiry is None:
            return Health(ok=True, message="the callback token does not say when it expires")
        if expiry <= self._clock():
            return Health(
                ok=False, message=f"the callback token expired at {expiry.isoformat()}: ask eCard Systems for a new one"
            )
        return Health(ok=True, message=f"the callback token expires at {expiry.isoformat()}")

    def seconds_left(self) -> float:
        """Return the seconds before the token expires, negative when it has; NaN when unknown."""
        if self._token is None or self._token.expires_at is None:
            return math.nan
        return (self._token.expires_at - self._clock()).total_seconds()
