"""Notifying eCard Systems of the outcome of a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token.

    Attributes:
        expires_at: From the ``exp`` claim or ``expires_in``, unverified; None where unknown.
    """

    value: SecretStr
    expires_at: datetime | None


class TokenProvider(Protocol):
    """Where the bearer token comes from: a file, or OAuth client credentials."""

    async def token(self) -> Token:
        """Return the current token; reads the file again at least once a minute, fetches a new one before expiry.

        Raises:
            TokenUnavailable: No usable token (TransientError): the file is missing or malformed, the server refuses.
        """
        ...

    async def renew(self, rejected: Token) -> Token:
        """Return a token after a 401: read or fetch again, once for all waiting callers (single-flight)."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What ECS said to one callback.

    Attributes:
        result: ``accepted``: ECS has the outcome. ``refused``: repeating the same body cannot help (400, 404, 409, 415,
            422, a 2xx that is not a confirmation, 401 after the token was read again).
        status: HTTP status.
        code: Stable reason, e.g. ``callback_accepted``, ``callback_conflict``, ``callback_unauthorized``,
            ``callback_not_confirmed``.
        detail: What ECS wrote, masked and cut to 300 characters.
    """

    result: Literal["accepted", "refused"]
    status: int
    code: str
    detail: str


class Caller(Protocol):
    """Sends callbacks."""

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        """POST ``body`` with ``X-Request-Id: request_id`` once (twice after a 401) and interpret the answer.

        Raises:
            TransientError: 408, 425, 429, 5xx, timeout or connection error, no token; ``retry_after`` from the answer.
            AddressRefused: The callback URL's host, scheme or address is not allowed (PermanentError).
        """
        ...
