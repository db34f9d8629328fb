"""Watches the callback token of an integration, for the alarm and the metrics."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import datetime
from typing import Final, NoReturn

import structlog

from pipeline.errors import Overloaded, TransientError
from pipeline.jobs.ecs.tokens import TokenProvider
from pipeline.jobs.partners import Resume
from pipeline.observability import Health, Metrics
from pipeline.outbound import Token, TokenUnavailable

_RESUMES: Final = 2
"""How often waiting callbacks are resumed after a new token. During the first time, another callback may be parked
because of the old token; the second time finds it.
"""

log = structlog.get_logger(__name__)

INTERVAL: Final = 10.0
"""Seconds between two checks; a check of an unchanged file costs one ``stat``."""


class TokenWatch:
    """Checks one integration's token every ten seconds and whenever a callback was answered.

    Once a token is usable, it resumes waiting callbacks. After a change of the token, it resumes all of them. At the
    start of the process, it resumes only those that wait for a token.

    An unusable token raises an alarm, but the process stays ready: the other integrations need it.
    """

    def __init__(
        self,
        provider: TokenProvider,
        *,
        integration: str,
        metrics: Metrics,
        clock: Callable[[], datetime],
        resume: Resume,
    ) -> None:
        self._provider = provider
        self._integration = integration
        self._clock = clock
        self._token: Token | None = None
        self._problem = "not looked at yet"
        self._was_ok: bool | None = None
        self._rejected: tuple[Token | None, str] | None = None
        self._resume = resume
        self._usable: Token | None = None
        self._resumes_left = 0
        self._resumed_code: str | None = "token_expired"
        metrics.token_seconds_left.labels(integration).set_function(self.seconds_left)
        metrics.token_usable.labels(integration).set_function(lambda: float(self.check().ok))

    async def run(self, *, interval: float = INTERVAL) -> NoReturn:
        """Check the token every ``interval`` seconds until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(interval)

    async def poll(self) -> None:
        """Check the token once; log a change of its state, and resume the callbacks that waited for it."""
        try:
            self._token = await self._provider.token()
        except TokenUnavailable as error:
            self.unavailable(error)
        else:
            self._note_token(self._token)
        await self._resume_callbacks()

    def _note_token(self, token: Token) -> None:
        if self._rejected is not None and self._rejected[0] != token:
            self._rejected = None  # a new token, which ECS has not rejected yet
        self._report()

    def unavailable(self, error: TokenUnavailable) -> None:
        """Note that there is no token."""
        self._token, self._problem = None, error.message
        self._report()

    def rejected(self, detail: str) -> None:
        """Note that ECS has rejected the token, and why. A new token, or a callback that ECS accepts, ends this."""
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

    async def _resume_callbacks(self) -> None:
        if self._token is None or not self.check().ok:
            self._usable, self._resumed_code = None, None
            return
        if self._usable is None or self._usable.value != self._token.value:
            self._resumed_code = None if self._usable else self._resumed_code
            self._usable, self._resumes_left = self._token, _RESUMES
        if not self._resumes_left:
            return
        try:
            await self._resume(self._resumed_code)
        except (TransientError, Overloaded) as error:
            # the next look repeats it
            log.warning("callbacks_not_resumed", integration=self._integration, code=error.code, message=error.message)
        else:
            self._resumes_left -= 1

    def check(self) -> Health:
        """Return whether the token can be used. A token whose expiry is unknown can be."""
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
