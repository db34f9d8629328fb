"""The bearer token from onboarding, in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import SecretStr

from pipeline.jobs.ecs.errors import unavailable
from pipeline.jobs.ecs.jwt_expiry import read_expiry
from pipeline.jobs.ecs.protocols import Token
from pipeline.secret_files import SecretUnreadable, TokenFile

log = structlog.get_logger(__name__)


class FileTokenProvider:
    """The token that the file holds now: a replaced file applies at once, without a restart.

    Args:
        path: Of the file; see :class:`pipeline.secret_files.TokenFile`.
        integration: Named in log lines.
        remember: Told each new token before it is used, so that the log redaction knows it.
    """

    def __init__(self, path: Path, *, integration: str, remember: Callable[[SecretStr], None]) -> None:
        self._file = TokenFile(path)
        self._integration = integration
        self._remember = remember
        self._known: Token | None = None

    async def token(self) -> Token:
        """Return the token that the file holds now. Raises TokenUnavailable."""
        return await self._read(fresh=False)

    async def renew(self, rejected: Token) -> Token:  # noqa: ARG002 - the file decides, not what was rejected
        """Read the file again; the result equals ``rejected`` unless the file was replaced. Raises TokenUnavailable."""
        return await self._read(fresh=True)

    async def _read(self, *, fresh: bool) -> Token:
        try:
            value = await self._file.token(fresh=fresh)
        except SecretUnreadable as error:
            raise unavailable(error, "callback token") from error
        if self._known is None or self._known.value != value:
            self._known = self._introduce(value)
        return self._known

    def _introduce(self, value: SecretStr) -> Token:
        self._remember(value)
        token = Token(value, read_expiry(value.get_secret_value()))
        if token.expires_at is None:
            log.warning("token_read", integration=self._integration, expiry="unknown")
        else:
            log.info("token_read", integration=self._integration, expiry=token.expires_at)
        return token
