"""Bearer tokens by OAuth 2.0 client credentials, as eCard Systems does it for its REST API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final, cast

import aiohttp
import structlog
from pydantic import SecretStr

from pipeline.errors import TransientError
from pipeline.jobs.ecs.answers import describe
from pipeline.jobs.ecs.errors import TokenUnavailable, unavailable
from pipeline.jobs.ecs.exchange import HttpAnswer, exchange
from pipeline.jobs.ecs.oauth_answers import read_token, token_request
from pipeline.jobs.ecs.protocols import Token
from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.outbound import AddressRefused, request_url, retry_after_seconds
from pipeline.secret_files import SecretUnreadable, TokenFile

log = structlog.get_logger(__name__)

FAILURE_PAUSE: Final = timedelta(seconds=5)
"""After a failed fetch nobody asks the token server again for this long (longer where it says Retry-After)."""

REFRESH_BEFORE: Final = timedelta(minutes=10)
"""A new token is fetched this long before the old one expires, or in the middle of its life if that is later: long
enough to outlast a short outage of the token server."""

RENEWAL_PAUSE: Final = timedelta(seconds=10)
"""A token younger than this is not renewed on a 401: a new one would be refused for the same reason."""

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/vnd.api+json, application/json",
}


class OAuthTokenProvider:
    """Fetches a token, keeps it, and fetches the next one before it expires.

    Single-flight: however many callers wait, one request is under way, and all get its result. When a renewal fails
    while the old token is still good, the old one is given, with a warning. Cancelling a caller is safe: the next one
    fetches.

    Args:
        oauth: Where and as whom to ask.
        settings: Timeouts and bounds of the integration's requests.
        integration: Named in log lines.
        session: The guarded session: it decides which addresses may be connected to.
        clock: UTC, aware.
        remember: Told each secret before it is used, so that the log redaction knows it.
    """

    def __init__(
        self,
        oauth: OAuthSettings,
        settings: CallbackSettings,
        *,
        integration: str,
        session: aiohttp.ClientSession,
        clock: Callable[[], datetime],
        remember: Callable[[SecretStr], None],
    ) -> None:
        self._oauth = oauth
        self._settings = settings
        self._integration = integration
        self._session = session
        self._clock = clock
        self._remember = remember
        self._lock = asyncio.Lock()
        self._fetches = 0
        self._token: Token | None = None
        self._fetched_at = clock()
        self._last: Token | TokenUnavailable | None = None
        self._not_before = clock()

    async def token(self) -> Token:
        """Return a token that is not about to expire. Raises TokenUnavailable."""
        current = self._token
        if current is not None and not self._is_due(current):
            return current
        try:
            return await self._fetch_once()
        except TokenUnavailable as error:
            if current is None or (current.expires_at is not None and current.expires_at <= self._clock()):
                raise
            log.warning("old_token_kept", integration=self._integration, code=error.code, message=error.message)
            return current

    async def renew(self, rejected: Token) -> Token:
        """Return another token than the rejected one; the same one where it was fetched seconds ago.

        Raises TokenUnavailable.
        """
        current = self._token
        if current is not None and current.value != rejected.value:
            return current  # someone else has renewed it meanwhile
        if current is not None and self._clock() < self._fetched_at + RENEWAL_PAUSE:
            return current
        return await self._fetch_once()

    def _is_due(self, token: Token) -> bool:
        if token.expires_at is None:
            return False  # then a 401 says so
        life = token.expires_at - self._fetched_at
        margin = min(REFRESH_BEFORE, life / 2)
        return self._clock() >= token.expires_at - margin

    async def _fetch_once(self) -> Token:
        seen = self._fetches
        async with self._lock:
            if self._last is None or (self._fetches == seen and self._clock() >= self._not_before):
                self._last = await self._fetch()
                self._fetches += 1
            if isinstance(self._last, Token):
                return self._last
            raise TokenUnavailable(self._last.code, self._last.message, retry_after=self._pause()) from self._last

    def _pause(self) -> float:
        return max((self._not_before - self._clock()).total_seconds(), 0.0)

    async def _fetch(self) -> Token | TokenUnavailable:
        try:
            token = await self._ask()
        except TokenUnavailable as failure:
            self._not_before = self._clock() + max(FAILURE_PAUSE, timedelta(seconds=failure.retry_after or 0))
            return failure
        self._remember(token.value)
        self._token, self._fetched_at = token, self._clock()
        log.info("token_fetched", integration=self._integration, expiry=token.expires_at or "unknown")
        return token

    async def _ask(self) -> Token:
        secret = await self._secret()
        body = token_request(client_id=self._oauth.client_id, client_secret=secret, scope=self._oauth.scope)
        try:
            answer = await exchange(
                self._session, request_url(self._oauth.token_url), body=body, headers=_HEADERS, settings=self._settings
            )
        except AddressRefused as error:
            # for the callback this is no verdict on its URL: it waits until the configuration is right
            message = "callback.oauth.token_url is not allowed: https, public addresses, unless hosts.* allows more"
            raise TokenUnavailable("callback_token_refused", f"{message} ({error.code})") from error
        except TransientError as error:
            raise TokenUnavailable("callback_token_unanswered", f"token server {error.message}") from error
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return read_token(answer.body, now=self._clock())
        raise self._refusal(answer, secret)

    async def _secret(self) -> SecretStr:
        secret = self._oauth.client_secret
        if secret is None:
            path = cast("Path", self._oauth.client_secret_file)  # the settings hold exactly one of the two
            try:
                secret = await TokenFile(path).token()
            except SecretUnreadable as error:
                raise unavailable(error, "OAuth client secret") from error
        self._remember(secret)
        return secret

    def _refusal(self, answer: HttpAnswer, secret: SecretStr) -> TokenUnavailable:
        said = describe(answer.body.replace(secret.get_secret_value().encode(), b"[masked]"))
        pause = retry_after_seconds(answer.headers.get("Retry-After"), now=self._clock())
        message = f"the token server answered {answer.status}: {said}"
        return TokenUnavailable("callback_token_refused", message, retry_after=pause)
