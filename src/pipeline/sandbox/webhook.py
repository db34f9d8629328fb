"""Sends ECS's webhook: signs it as configured and repeats it a few times. Shares no code with the verification."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiohttp
from yarl import URL

from pipeline.sandbox.settings import HmacScheme, SandboxSettings, Scheme

_ACCEPTED: Final = range(200, 300)
_ANSWER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to announce a job.

    Attributes:
        status: HTTP status, or None without an answer.
        answer: The beginning of the answer, or the reason why there was none.
    """

    at: datetime
    status: int | None
    answer: str

    @property
    def accepted(self) -> bool:
        """Whether the integrator accepted it."""
        return self.status in _ACCEPTED


def signature_headers(scheme: Scheme, secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that authenticate a webhook."""
    if not isinstance(scheme, HmacScheme):
        return {scheme.header: f"{scheme.prefix}{secret}"}
    stamp = str(int(at.timestamp()))
    signed = body if scheme.timestamp_header is None else f"{stamp}{scheme.separator}".encode() + body
    digest = hmac.digest(secret.encode(), signed, scheme.hash)
    text = digest.hex() if scheme.encoding == "hex" else base64.b64encode(digest).decode()
    headers = {scheme.header: f"{scheme.prefix}{text}"}
    return headers if scheme.timestamp_header is None else headers | {scheme.timestamp_header: stamp}


class Webhook:
    """Sends announcements."""

    def __init__(
        self, settings: SandboxSettings, session: aiohttp.ClientSession, *, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock

    async def send(self, url: str, body: bytes, scheme: Scheme | None = None) -> list[Attempt]:
        """POST an announcement until it is accepted or all pauses are used up; return every try.

        It does not repeat after a 4xx other than 408 and 429, because the integrator has refused the announcement.
        """
        attempts: list[Attempt] = []
        for pause in (*self._settings.webhook_pauses_seconds, None):
            attempt = await self._try(url, body, scheme or self._settings.scheme)
            attempts.append(attempt)
            if attempt.accepted or pause is None or _refused(attempt.status):
                break
            await asyncio.sleep(pause)
        return attempts

    async def _try(self, url: str, body: bytes, scheme: Scheme) -> Attempt:
        at = self._clock()
        secret = self._settings.webhook_secret.get_secret_value()
        headers = {"Content-Type": "application/json"} | signature_headers(scheme, secret, body, at)
        timeout = aiohttp.ClientTimeout(total=self._settings.webhook_timeout_seconds)
        try:
            async with self._session.post(
                URL(url, encoded=True), data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await response.content.read(_ANSWER_BYTES)
                return Attempt(at, response.status, answer.decode("utf-8", "replace"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Attempt(at, None, type(error).__name__)


def _refused(status: int | None) -> bool:
    return status is not None and 400 <= status < 500 and status not in {408, 429}  # noqa: PLR2004 - HTTP
