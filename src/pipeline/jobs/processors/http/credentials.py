"""Credentials for the card service: a token or password in a file, an OAuth token, or a client certificate."""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from pydantic import SecretStr

from pipeline.errors import TransientError
from pipeline.jobs.processors.http.options import HttpOptions, OAuthClient
from pipeline.outbound import (
    ClientCredentials,
    FormTokens,
    HostRules,
    NetworkSettings,
    Token,
    TokenUnavailable,
    open_session,
    split_url,
    tls_context,
)
from pipeline.secret_files import CertificateUnusable, SecretUnreadable, TokenFile, load_client_certificate

_TRUSTED_SECONDS: Final = 1.0
"""A check of the secret's file costs more than the rest of a card's work here.

If the service refuses the secret, the file is read at once.
"""
_CERTIFICATE_SECONDS: Final = 60.0
"""Time between two checks of the files of the client certificate."""


class Credentials(Protocol):
    """Provides the value of the header field that carries the credentials."""

    async def value(self) -> str:
        """Return the value for the next request.

        Raises:
            TransientError: There is none now (``http_token_unavailable``); the job is retried later.
        """
        ...

    async def renewed(self, refused: str) -> str:
        """Return a new value after the service refused one; the same value if there is no other.

        Raises like ``value``.
        """
        ...


class TokenCredentials:
    """A token in a file, with a fixed text before it."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._file = TokenFile(path, trusted_seconds=_TRUSTED_SECONDS)
        self._prefix = prefix

    async def value(self) -> str:
        """See Credentials."""
        return self._prefix + await _read(self._file)

    async def renewed(self, refused: str) -> str:  # noqa: ARG002 - the file decides, not what was refused
        """See Credentials."""
        return self._prefix + await _read(self._file, fresh=True)


class BasicCredentials:
    """User and password for HTTP Basic (RFC 7617); a file holds the password."""

    def __init__(self, user: str, path: Path) -> None:
        self._file = TokenFile(path, trusted_seconds=_TRUSTED_SECONDS)
        self._user = user

    async def value(self) -> str:
        """See Credentials."""
        return self._written(await _read(self._file))

    async def renewed(self, refused: str) -> str:  # noqa: ARG002 - the file decides, not what was refused
        """See Credentials."""
        return self._written(await _read(self._file, fresh=True))

    def _written(self, password: str) -> str:
        return f"Basic {b64encode(f'{self._user}:{password}'.encode()).decode()}"


class OAuthCredentials:
    """A bearer token of OAuth 2.0 client credentials. A new one is fetched before the old one expires."""

    def __init__(self, client: OAuthClient, options: HttpOptions, network: NetworkSettings) -> None:
        rules = HostRules(
            callback=(split_url(client.token_url).authority,),
            allow_http=options.allow_http,
            allow_private=options.allow_private,
            allow_nat64=True,  # the url is the operator's
        )
        self._tokens = ClientCredentials(
            client.token_url,
            FormTokens(client.client_id, client.scope),
            secret=TokenFile(client.client_secret_file),
            session=lambda: open_session(rules, network, "callback"),
            timeout_seconds=options.timeout_seconds,
            clock=lambda: datetime.now(UTC),
            remember=_forget,
        )

    async def value(self) -> str:
        """See Credentials."""
        try:
            return _bearer(await self._tokens.token())
        except TokenUnavailable as error:
            raise _unavailable(error.message, error.retry_after) from error

    async def renewed(self, refused: str) -> str:
        """See Credentials."""
        try:
            return _bearer(await self._tokens.renew(Token(SecretStr(refused.removeprefix("Bearer ")), None)))
        except TokenUnavailable as error:
            raise _unavailable(error.message, error.retry_after) from error


def credentials_of(options: HttpOptions, network: NetworkSettings) -> Credentials | None:
    """Return the configured credentials; None if requests carry none in a header field."""
    if options.token_file is not None:
        return TokenCredentials(options.token_file, options.token_prefix)
    if options.basic is not None:
        return BasicCredentials(options.basic.user, options.basic.password_file)
    return None if options.oauth is None else OAuthCredentials(options.oauth, options, network)


class ClientCertificate:
    """The client certificate of a session's connections. New files apply to new connections, without a restart.

    Args:
        cert_file: The chain, in PEM.
        key_file: Its private key, in PEM.
        network: The authorities that the session trusts.

    Attributes:
        context: The TLS context to open the session with.
    """

    def __init__(self, cert_file: Path, key_file: Path, network: NetworkSettings) -> None:
        self.context: Final[ssl.SSLContext] = tls_context(network)
        self._files = cert_file, key_file
        self._loaded: tuple[tuple[int, int], ...] | None = None
        self._look_at = 0.0
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Load the files if they were replaced. It checks them once a minute.

        Raises:
            TransientError: The files cannot be used (``http_certificate_unusable``); the job is retried later.
        """
        if time.monotonic() < self._look_at:
            return
        async with self._lock:
            if time.monotonic() >= self._look_at:
                await asyncio.to_thread(self._load)
                self._look_at = time.monotonic() + _CERTIFICATE_SECONDS

    def _load(self) -> None:
        try:
            seen = tuple((file.stat().st_mtime_ns, file.stat().st_ino) for file in self._files)
            if seen == self._loaded:
                return
            load_client_certificate(self.context, *self._files)
        except CertificateUnusable as error:
            why = f"{', '.join(f'client_{file}' for file in error.files)} cannot be used: {error.why}"
        except OSError as error:
            why = f"client_cert_file, client_key_file cannot be used: {error.strerror or type(error).__name__}"
        else:
            self._loaded = seen
            return
        raise TransientError("http_certificate_unusable", f"Processor http has no client certificate: {why}.")


async def _read(file: TokenFile, *, fresh: bool = False) -> str:
    try:
        return (await file.token(fresh=fresh)).get_secret_value()
    except SecretUnreadable as error:
        raise _unavailable(error.message) from error


def _unavailable(message: str, retry_after: float | None = None) -> TransientError:
    return TransientError("http_token_unavailable", f"Processor http has no token: {message}.", retry_after=retry_after)


def _bearer(token: Token) -> str:
    return f"Bearer {token.value.get_secret_value()}"


def _forget(_secret: SecretStr) -> None:
    """Do nothing: no log line of the processor contains its requests."""
