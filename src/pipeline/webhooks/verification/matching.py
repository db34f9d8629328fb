"""Trying every key that counts, in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.keys import DatedT, Key


def matching_key(keys: Sequence[Key], received: Sequence[bytes], expected: Callable[[bytes], bytes]) -> str:
    """Return the id of the first key for which ``expected(key)`` equals one of what was received.

    All of them are computed and compared, also after one matched.

    Raises:
        SignatureRefused: None matches.
    """

    def matches(key: Key) -> bool:
        computed = expected(key.value)
        return any([hmac.compare_digest(computed, one) for one in received])  # noqa: C419 - no early end

    return first_matching(keys, matches)


def first_matching(keys: Sequence[DatedT], matches: Callable[[DatedT], bool]) -> str:
    """Return the id of the first key that matches; the others are tried all the same.

    Raises:
        SignatureRefused: None matches.
    """
    matched = [key.id for key in keys if matches(key)]
    if not matched:
        raise SignatureRefused(Reason.NOT_VERIFIED, f"None of {len(keys)} active secrets verifies the request")
    return matched[0]
