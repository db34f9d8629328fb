"""Tokens for OAUTHBEARER. This module is imported only if configured, because nothing else here needs aiohttp."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from functools import partial
from typing import Final, cast

from aiokafka.abc import AbstractTokenProvider
from pydantic import SecretStr

from pipeline.errors import FatalError
from pipeline.kafka.client.causes import TokenFailed
from pipeline.kafka.settings import SaslSettings
from pipeline.outbound import (
    ClientCredentials,
    FormTokens,
    HostRules,
    MalformedUrl,
    NetworkSettings,
    TokenUnavailable,
    open_session,
    split_url,
)

_TOKEN_TIMEOUT_SECONDS: Final = 10.0
"""How long one token request may take: connections to the brokers wait for it."""


class OAuthBearer(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Gives the client library the token of OAuth client credentials; its connections share one token.

    It raises failures as the library's connection error, so that the library waits and tries again.

    Args:
        sasl: Complete settings of OAUTHBEARER.
        context: TLS towards the brokers, also used for the token server; None: the system's authorities.
        timeout_seconds: How long one token request may take, with its answer.

    Raises:
        FatalError: ``token_url`` is not a URL.
    """

    def __init__(
        self,
        sasl: SaslSettings,
        context: ssl.SSLContext | None,
        *,
        timeout_seconds: float = _TOKEN_TIMEOUT_SECONDS,
    ) -> None:
        url = cast("str", sasl.token_url)
        try:
            authority = split_url(url).authority
        except MalformedUrl as error:
            raise FatalError("kafka_token_url", f"kafka.sasl.token_url: the URL {error.rule}") from None
        # the operator chose this host, so it may be inside the network; the settings allow http only to this machine
        rules = HostRules(callback=(authority,), allow_http=True, allow_private=True, allow_nat64=True)
        self._credentials = ClientCredentials(
            url,
            FormTokens(cast("str", sasl.client_id), sasl.scope),
            secret=cast("SecretStr", sasl.client_secret),
            session=partial(open_session, rules, NetworkSettings(), "callback", tls=context),
            timeout_seconds=timeout_seconds,
            clock=lambda: datetime.now(UTC),
            remember=lambda _secret: None,
        )

    async def token(self) -> str:
        """Return a token that is still valid for a while."""
        try:
            return (await self._credentials.token()).value.get_secret_value()
        except TokenUnavailable as error:
            raise TokenFailed(f"token endpoint: {error.message}") from error
