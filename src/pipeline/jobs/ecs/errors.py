"""Errors of the callback room."""

from __future__ import annotations

from pipeline.errors import TransientError


class TokenUnavailable(TransientError):
    """There is no usable bearer token now: the file is missing or malformed, or the token server gives none.

    Codes: ``callback_token_unreadable``, ``callback_token_malformed``, ``callback_token_refused``,
    ``callback_token_unanswered``. Nothing was sent to the callback URL.
    """
