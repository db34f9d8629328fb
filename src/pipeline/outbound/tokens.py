"""Bearer tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4), from token servers of different formats."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import quote_plus, urlencode

import aiohttp
import structlog
from pydantic import SecretStr

from pipeline.errors import TransientError
from pipeline.outbound.answers import HttpAnswer, post, retry_after_seconds
from pipeline.outbound.urls import AddressRefused, request_url
from pipeline.secret_files import SecretUnreadable, TokenFile, token_fault

log = structlog.get_logger(__name__)

FAILURE_PAUSE: Final = timedelta(seconds=5)
"""After a failed fetch, no request goes to the token server for this long (longer if it sends Retry-After)."""

REFRESH_BEFORE: Final = timedelta(minutes=10)
"""A new token is fetched this long before the old one expires, or after half of its life if that is later.

So a short outage of the token server does no harm.
"""

RENEWAL_PAUSE: Final = timedelta(seconds=10)
"""A token younger than this is not renewed on a 401: a new one would be refused for the same reason."""

_DEFAULT_LIFE: Final = timedelta(minutes=1)
"""Assumed if an answer has no usable ``expires_in``, which the RFC only recommends."""

_LONGEST_LIFE: Final = 10 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token.

    Attributes:
        expires_at: According to the token server or the token itself, unverified; None if unknown.
    """

    value: SecretStr
    expires_at: datetime | None


class TokenUnavailable(TransientError):
    """There is no usable bearer token now: a file is missing or malformed, or the token server gives none.

    Codes: ``token_unreadable``, ``token_malformed``, ``token_refused``, ``token_unanswered``.
    """

    @classmethod
    def from_file(cls, error: SecretUnreadable, what: str) -> TokenUnavailable:
        """Return the error for a file without a usable secret.

        It is transient, because an operator can fix the file.
        """
        if error.malformed:
            return TokenUnavailable("token_malformed", f"{what}: {error.message}")
        return TokenUnavailable("token_unreadable", f"{what}: {error.message}")


class TokenFormat(Protocol):
    """The requests and answers of one kind of token server. Pure."""

    def request(self, secret: SecretStr) -> tuple[Mapping[str, str], bytes]:
        """Return the headers and the body that ask for a token."""
        ...

    def token(self, body: bytes, *, now: datetime) -> Token:
        """Return the token of a 2xx answer.

        Raises:
            TokenUnavailable: ``token_malformed``; the message names what is missing, never a value.
        """
        ...

    def describe(self, body: bytes) -> str:
        """Return the text of a refusal that a log may show; empty if it may show none."""
        ...


class FormTokens:
    """The form of RFC 6749: a urlencoded form with HTTP Basic authentication, answered by a flat JSON object."""

    def __init__(self, client_id: str, scope: str | None = None) -> None:
        self._client_id = client_id
        self._scope = scope

    def request(self, secret: SecretStr) -> tuple[Mapping[str, str], bytes]:
        """See TokenFormat. Both parts of the credentials are urlencoded first (RFC 6749, section 2.3.1)."""
        credentials = f"{quote_plus(self._client_id)}:{quote_plus(secret.get_secret_value())}"
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        headers = {
            "Authorization": f"Basic {b64encode(credentials.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        return headers, urlencode(form).encode()

    def token(self, body: bytes, *, now: datetime) -> Token:
        """See TokenFormat. Without a usable ``expires_in`` the token is used for a minute."""
        try:
            answer: Any = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        text = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(text, str) or not text:
            raise TokenUnavailable("token_malformed", "the answer has no access_token")
        life = answer.get("expires_in")
        known = isinstance(life, int | float) and not isinstance(life, bool) and 0 < life <= _LONGEST_LIFE
        return Token(checked_token(SecretStr(text)), now + (timedelta(seconds=life) if known else _DEFAULT_LIFE))

    def describe(self, body: bytes) -> str:
        """See TokenFormat. It returns nothing, so that logs show only the status."""
        del body
        return ""


def checked_token(token: SecretStr) -> SecretStr:
    """Return a token that a header can carry.

    Raises:
        TokenUnavailable: ``token_malformed``.
    """
    fault = token_fault(token)
    if fault is not None:
        raise TokenUnavailable("token_malformed", f"the access token {fault}")
    return token


class ClientCredentials:
    """Fetches a token, keeps it, and fetches the next one before it expires.

    Single-flight: all waiting callers share one request and its result. If a renewal fails while the old token is still
    valid, callers get the old one, and a warning is logged. If a caller is cancelled, the next one fetches.

    Args:
        url: URL of the token server, checked by ``split_url``.
        token_format: The format of its requests and answers.
        secret: The client secret, or the file that holds it, which is read again before every request.
        session: Opens a session that may reach the token server and nothing else.
        timeout_seconds: For one request.
        clock: UTC, aware.
        remember: Called with each secret before it is used, so that logs mask it.
    """

    def __init__(
        self,
        url: str,
        token_format: TokenFormat,
        *,
        secret: SecretStr | TokenFile,
        session: Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]],
        timeout_seconds: float,
        clock: Callable[[], datetime],
        remember: Callable[[SecretStr], None],
    ) -> None:
        self._url = request_url(url)
        self._format = token_format
        self._client_secret = secret
        self._session = session
        self._timeout = timeout_seconds
        self._clock = clock
        self._remember = remember
        self._lock = asyncio.Lock()
        self._fetches = 0
        self._token: Token | None = None
        self._fetched_at = clock()
        self._last: Token | TokenUnavailable | None = None
        self._not_before = clock()

    async def token(self) -> Token:
        """Return a token that is not about to expire.

        Raises:
            TokenUnavailable: There is none.
        """
        current = self._token
        if current is not None and not self._is_due(current):
            return current
        try:
            return await self._fetch_once()
        except TokenUnavailable as error:
            if current is None or (current.expires_at is not None and current.expires_at <= self._clock()):
                raise
            log.warning("old_token_kept", server=self._url.host, code=error.code, message=error.message)
            return current

    async def renew(self, rejected: Token) -> Token:
        """Return another token than the rejected one, or the same one if it was fetched only seconds ago.

        Raises:
            TokenUnavailable: There is none.
        """
        current = self._token
        if current is not None and current.value != rejected.value:
            return current  # another caller has renewed it meanwhile
        if current is not None and self._clock() < self._fetched_at + RENEWAL_PAUSE:
            return current
        return await self._fetch_once()

    def _is_due(self, token: Token) -> bool:
        if token.expires_at is None:
            return False  # a 401 will show that it has expired
        life = token.expires_at - self._fetched_at
        return self._clock() >= token.expires_at - min(REFRESH_BEFORE, life / 2)

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
        log.info("token_fetched", server=self._url.host, expiry=token.expires_at or "unknown")
        return token

    async def _ask(self) -> Token:
        secret = await self._secret()
        headers, body = self._format.request(secret)
        try:
            async with self._session() as session:
                answer = await post(session, self._url, body=body, headers=headers, timeout_seconds=self._timeout)
        except AddressRefused as error:
            # transient: the callback waits until an operator corrects the configuration
            message = "token_url is not allowed: it must use https and a public address, unless the settings allow more"
            raise TokenUnavailable("token_refused", f"{message} ({error.code})") from error
        except TransientError as error:
            raise TokenUnavailable("token_unanswered", f"token server {error.message}") from error
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return self._format.token(answer.body, now=self._clock())
        raise self._refusal(answer, secret)

    async def _secret(self) -> SecretStr:
        secret = self._client_secret
        if isinstance(secret, TokenFile):
            try:
                secret = await secret.token(fresh=True)
            except SecretUnreadable as error:
                raise TokenUnavailable.from_file(error, "OAuth client secret") from error
        self._remember(secret)
        return secret

    def _refusal(self, answer: HttpAnswer, secret: SecretStr) -> TokenUnavailable:
        said = self._format.describe(answer.body.replace(secret.get_secret_value().encode(), b"[masked]"))
        pause = retry_after_seconds(answer.headers.get("Retry-After"), now=self._clock())
        message = f"the token server answered {answer.status}" + (f": {said}" if said else "")
        return TokenUnavailable("token_refused", message, retry_after=pause)
