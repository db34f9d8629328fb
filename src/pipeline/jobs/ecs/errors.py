"""Errors of the callback room."""

from __future__ import annotations

from pipeline.errors import TransientError
from pipeline.secret_files import SecretUnreadable


class TokenUnavailable(TransientError):
    """There is no usable bearer token now: the file is missing or malformed, or the token server gives none.

    Codes: ``callback_token_unreadable``, ``callback_token_malformed``, ``callback_token_refused``,
    ``callback_token_unanswered``. Nothing was sent to the callback URL.
    """


def unavailable(error: SecretUnreadable, what: str) -> TokenUnavailable:
    """Return the error for a secret file that gives no secret now: it may be mounted or fixed in a moment."""
    if error.malformed:
        return TokenUnavailable("callback_token_malformed", f"{what}: {error.message}")
    return TokenUnavailable("callback_token_unreadable", f"{what}: {error.message}")
