"""Bearer tokens for callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

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
