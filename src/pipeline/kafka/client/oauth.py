"""Tokens for OAUTHBEARER, by OAuth 2.0 client credentials (RFC 6749, 4.4)."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import Any, Final
from urllib.parse import quote_plus

import aiohttp
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from pipeline.kafka.settings import SaslSettings

_MAX_ANSWER: Final = 65_536
_KEPT_SHARE: Final = 0.8
"""A token is used for this share of its life: the broker must still find it valid when it arrives."""
_DEFAULT_LIFE: Final = 60.0
"""Seconds assumed where the answer has no expires_in (it is only RECOMMENDED)."""


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Fetches a token, keeps it for most of its life, and lets concurrent connections share one request.

    Failures are raised as the client library's connection error, so that it backs off and tries again.
    """

    def __init__(self, sasl: SaslSettings, context: ssl.SSLContext | None) -> None:
        self._sasl = sasl
        self._context = context
        self._lock = asyncio.Lock()
        self._token = ""
        self._stale_at = 0.0

    async def token(self) -> str:
        """Return a token that is valid for a while yet."""
        async with self._lock:
            if time.monotonic() >= self._stale_at:
                asked_at = time.monotonic()
                self._token, life = await self._fetch()
                self._stale_at = asked_at + life * _KEPT_SHARE
            return self._token

    async def _fetch(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._sasl.scope} if self._sasl.scope else {})
        timeout = aiohttp.ClientTimeout(total=self._sasl.token_timeout_seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(
                    self._sasl.token_url or "",
                    data=form,
                    headers={"Authorization": self._basic(), "Accept": "application/json"},
                    allow_redirects=False,
                    ssl=self._context or True,
                ) as answer,
            ):
                body = await answer.content.read(_MAX_ANSWER)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KafkaConnectionError(f"token endpoint: {type(error).__name__}") from error
        if answer.status != 200:  # noqa: PLR2004 - RFC 6749, 5.1
            raise KafkaConnectionError(f"token endpoint answered {answer.status}")
        return _parsed(body)

    def _basic(self) -> str:
        # RFC 6749, 2.3.1: both parts are form-urlencoded first
        secret = self._sasl.client_secret.get_secret_value() if self._sasl.client_secret else ""
        return aiohttp.encode_basic_auth(quote_plus(self._sasl.client_id or ""), quote_plus(secret))


def _parsed(body: bytes) -> tuple[str, float]:
    try:
        answer: Any = json.loads(body)
    except ValueError:
        answer = None
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token:
        raise KafkaConnectionError("token endpoint: the answer holds no access_token")
    life = answer.get("expires_in")
    known = isinstance(life, int | float) and not isinstance(life, bool) and life > 0
    return token, float(life) if known else _DEFAULT_LIFE
