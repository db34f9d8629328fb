"""What is known of an integration's callback token: the alarm and the metrics."""

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
    """Looks at one integration's token twice a minute, and learns at once what a callback shows about it.

    A token that cannot be used is an alarm. It leaves the process ready: the other integrations need it.
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
        self._rejected: tuple[Token | None, str] | None = None
        metrics.token_seconds_left.labels(integration).set_function(self.seconds_left)
        metrics.token_usable.labels(integration).set_function(lambda: float(self.check().ok))

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
            self.unavailable(error)
            return
        if self._rejected is not None and self._rejected[0] != self._token:
            self._rejected = None  # another token: nothing is known against it
        self._report()

    def unavailable(self, error: TokenUnavailable) -> None:
        """Note that there is no token."""
        self._token, self._problem = None, error.message
        self._report()

    def rejected(self, detail: str) -> None:
        """Note that ECS has just rejected the token, and why; until there is another one, or ECS accepts it."""
        self._rejected = self._token, detail
        self._report()

    def accepted(self) -> None:
        """Note that ECS has just accepted the token."""
        self._rejected = None
        self._report()

    def _report(self) -> None:
        health = self.check()
        if health.ok is not self._was_ok:
            self._was_ok = health.ok
            level = log.info if health.ok else log.error
            level("token_health_changed", integration=self._integration, ok=health.ok, message=health.message)

    def check(self) -> Health:
        """Return whether callbacks can be authenticated; an expired token cannot, an unknown expiry can."""
        if self._token is None:
            return Health(ok=False, message=f"no callback token: {self._problem}")
        if self._rejected is not None:
            why = f"ECS rejects the callback token ({self._rejected[1]}): put a valid one into its file"
            return Health(ok=False, message=why)
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
