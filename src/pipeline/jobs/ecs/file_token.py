"""The bearer token from onboarding, in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import SecretStr

from pipeline.jobs.ecs.jwt_expiry import read_expiry
from pipeline.jobs.ecs.protocols import Token
from pipeline.jobs.ecs.secret_file import read_secret_file

log = structlog.get_logger(__name__)


class FileTokenProvider:
    """Reads the token anew whenever it is asked for, so a replaced file counts at once, without a restart.

    Args:
        path: Opened by path each time.
        integration: Named in log lines.
        remember: Told each new token before it is used, so that the log redaction knows it.
    """

    def __init__(self, path: Path, *, integration: str, remember: Callable[[SecretStr], None]) -> None:
        self._path = path
        self._integration = integration
        self._remember = remember
        self._known: Token | None = None

    async def token(self) -> Token:
        """Return the token that the file holds now. Raises TokenUnavailable."""
        value = await read_secret_file(self._path, what="callback token")
        if self._known is None or self._known.value != value:
            self._known = self._introduce(value)
        return self._known

    async def renew(self, rejected: Token) -> Token:  # noqa: ARG002 - the file decides, not what was rejected
        """Read the file again; the result equals ``rejected`` unless the file was replaced. Raises TokenUnavailable."""
        return await self.token()

    def _introduce(self, value: SecretStr) -> Token:
        self._remember(value)
        token = Token(value, read_expiry(value.get_secret_value()))
        if token.expires_at is None:
            log.warning("token_read", integration=self._integration, expiry="unknown")
        else:
            log.info("token_read", integration=self._integration, expiry=token.expires_at)
        return token
