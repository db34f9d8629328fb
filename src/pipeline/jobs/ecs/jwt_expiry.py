"""When a bearer token says that it expires: for alarms only, since nobody here can verify it."""

from __future__ import annotations

from datetime import UTC, datetime

import jwt


def read_expiry(token: str) -> datetime | None:
    """Return the token's ``exp``, unverified; None for a token without one, or that is no JWT.

    ECS signs the token with a secret of its own. The claim decides nothing: an expired token is still sent, and
    ECS says what it thinks of it.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": True})
    except jwt.ExpiredSignatureError:
        claims = jwt.decode(token, options={"verify_signature": False})  # well-formed, as was just seen: since when
    except (jwt.InvalidTokenError, RecursionError):
        return None
    try:
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None
