"""The bearer token of callbacks: from a file, or from eCard Systems' token server; when it expires."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import jwt
import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from pipeline.jobs.ecs.answers import describe
from pipeline.outbound import Token, TokenUnavailable, checked_token
from pipeline.secret_files import SecretUnreadable, TokenFile

log = structlog.get_logger(__name__)

JSON_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/vnd.api+json, application/json",
}
"""Headers of every request to ECS's API."""

_LONGEST_LIFE: Final = 10 * 365 * 86_400


class TokenProvider(Protocol):
    """Where the bearer token comes from: a file, or OAuth client credentials."""

    async def token(self) -> Token:
        """Return the current token. A file is read at least once a minute; an OAuth token is renewed before it expires.

        Raises:
            TokenUnavailable: No usable token (TransientError): the file is missing or malformed, the server refuses.
        """
        ...

    async def renew(self, rejected: Token) -> Token:
        """Return a token after a 401: read or fetch again, once for all waiting callers (single-flight)."""
        ...


class FileTokenProvider:
    """Reads the token from a file. A replaced file applies at once, without a restart.

    Args:
        path: Of the file; see :class:`pipeline.secret_files.TokenFile`.
        integration: Named in log lines.
        remember: Called with each new token before it is used, so that logs mask it.
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
            raise TokenUnavailable.from_file(error, "callback token") from error
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


class _Attributes(BaseModel):
    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True, frozen=True)

    access_token: SecretStr
    token_type: str = Field(default="Bearer", pattern=r"(?i)^bearer$")
    expires_in: float | None = Field(default=None, gt=0, le=_LONGEST_LIFE)


class _Data(BaseModel):
    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True, frozen=True)

    attributes: _Attributes


class _Document(BaseModel):
    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True, frozen=True)

    data: _Data


class EcsTokens:
    """Format of eCard Systems: a JSON body and a JSON:API answer, where RFC 6749 has a form and a flat object.

    The token is ``data.attributes.access_token``. Without ``expires_in`` beside it the token's own ``exp`` applies.
    """

    def __init__(self, client_id: str, scope: str | None = None) -> None:
        self._client_id = client_id
        self._scope = scope

    def request(self, secret: SecretStr) -> tuple[Mapping[str, str], bytes]:
        """See TokenFormat."""
        fields: dict[str, Any] = {
            "client_id": self._client_id,
            "client_secret": secret.get_secret_value(),
            "grant_type": "client_credentials",
        }
        if self._scope is not None:
            fields["scope"] = self._scope
        return JSON_HEADERS, json.dumps(fields).encode()

    def token(self, body: bytes, *, now: datetime) -> Token:
        """See TokenFormat."""
        try:
            attributes = _Document.model_validate_json(body).data.attributes
        except ValidationError as error:
            where = ", ".join(sorted({".".join(map(str, row["loc"])) or "document" for row in error.errors()}))
            raise TokenUnavailable("token_malformed", f"the token answer is not as documented: {where}") from None
        value = checked_token(attributes.access_token)
        if attributes.expires_in is None:
            return Token(value, read_expiry(value.get_secret_value()))
        return Token(value, now + timedelta(seconds=attributes.expires_in))

    def describe(self, body: bytes) -> str:
        """See TokenFormat."""
        return describe(body)


def read_expiry(token: str) -> datetime | None:
    """Return the token's ``exp``, unverified; None if the token has none or is not a JWT.

    ECS signs the token with a secret of its own, so the signature cannot be verified here. A token that is expired by
    its own claim is not sent: ECS would answer 401.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": True})
    except jwt.ExpiredSignatureError:
        claims = jwt.decode(token, options={"verify_signature": False})  # well-formed: return when it expired
    except (jwt.InvalidTokenError, RecursionError):
        return None
    try:
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None
