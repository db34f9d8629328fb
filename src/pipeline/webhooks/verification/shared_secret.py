"""The scheme of a secret that is sent along."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from pipeline.contracts import Headers
from pipeline.webhooks.verification.keys import counting, keys_of
from pipeline.webhooks.verification.matching import matching_key
from pipeline.webhooks.verification.one_header import one_header, without_prefix
from pipeline.webhooks.verification.protocols import Secret
from pipeline.webhooks.verification.settings import SharedSecretSettings
from pipeline.webhooks.verification.trail import Note, unnoted


class SharedSecret:
    """Compares a header with the secrets; see :class:`~pipeline.webhooks.verification.protocols.Scheme`."""

    stored_headers: frozenset[str] = frozenset()
    """The header is the secret: it is kept nowhere."""

    def __init__(self, settings: SharedSecretSettings, secrets: Sequence[Secret]) -> None:
        """Take the resolved secrets, in the order in which they are tried."""
        self._name = settings.header
        self._prefix = settings.prefix.encode()
        self._keys = keys_of(secrets)

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        return self.follow(headers, body, now, unnoted)

    def follow(self, headers: Headers, body: bytes, now: datetime, note: Note) -> str:  # noqa: ARG002 - the body is not signed
        """Verify, and note each step; see :class:`~pipeline.webhooks.verification.trail.Followed`."""
        keys = counting(self._keys, now)
        note("secrets", f"{len(keys)} of {len(self._keys)} count at this time: {', '.join(key.id for key in keys)}")
        received = without_prefix(one_header(headers, self._name), self._prefix, self._name)
        note("header", f"{self._name} stands there once")
        # compare_digest stops early where lengths differ: digests have one length, so that of the secret stays ours
        found = matching_key(keys, [hashlib.sha256(received).digest()], lambda key: hashlib.sha256(key).digest())
        note("match", f"equal to {found}")
        return found
