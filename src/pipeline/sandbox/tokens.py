"""The bearer tokens of ECS's callbacks: minted at onboarding or through OAuth, verified according to RFC 8725."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import jwt

from pipeline.sandbox.settings import SandboxSettings

_ALGORITHM: Final = "HS256"
YEAR: Final = timedelta(days=365)


class TokenRefused(Exception):
    """The bearer token is not one of ours, or has expired."""


class Tokens:
    """Mints and verifies the tokens of one platform secret."""

    def __init__(self, settings: SandboxSettings, *, clock: Callable[[], datetime]) -> None:
        self._secret = settings.jwt_secret.get_secret_value()
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._clock = clock

    def mint(self, partner: UUID, *, lifetime: timedelta = YEAR, claims: Mapping[str, object] | None = None) -> str:
        """Return a token for a partner.

        ``claims`` replaces or adds claims; the value None removes one. Use it to make a wrong token.
        """
        now = self._clock()
        usual: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(partner),
            "iat": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
        }
        asked = {name: value for name, value in (usual | dict(claims or {})).items() if value is not None}
        return jwt.encode(asked, self._secret, algorithm=_ALGORITHM)

    def partner(self, authorization: str | None) -> UUID:
        """Return the partner of an Authorization header.

        It accepts only one algorithm, so it refuses ``none``, other hashes, and a public key as secret. It requires
        issuer, audience, subject and expiry.

        Raises:
            TokenRefused: The token is invalid; it has a reason for a person.
        """
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise TokenRefused("a bearer token is needed")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "iss", "sub", "aud"],
                    "strict_aud": True,
                    # checked below, with the injected clock
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            expires = float(claims["exp"])
            partner = UUID(claims["sub"])
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenRefused(f"the token is not valid: {type(error).__name__}") from error
        if self._clock().timestamp() >= expires:
            raise TokenRefused("the token has expired")
        return partner
