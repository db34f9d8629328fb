"""The scheme of a secret that is sent along."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from pipeline.contracts import Headers
from pipeline.signatures.errors import Reason
from pipeline.signatures.matching import active_secrets, matching_secret
from pipeline.signatures.one_header import one_header, without_prefix
from pipeline.signatures.protocols import Secret
from pipeline.signatures.settings import SharedSecretSettings


class SharedSecret:
    """Compares a header with the secrets; see :class:`~pipeline.signatures.protocols.Scheme`."""

    stored_headers: frozenset[str] = frozenset()
    """The header is the secret: it is kept nowhere."""

    def __init__(self, settings: SharedSecretSettings, secrets: Sequence[Secret]) -> None:
        """Take the resolved secrets, in the order in which they are tried."""
        self._name = settings.header
        self._prefix = settings.prefix.encode()
        self._secrets = tuple(secrets)

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:  # noqa: ARG002 - the body is not signed
        """See Scheme."""
        secrets = active_secrets(self._secrets, now)
        value = one_header(headers, self._name, missing=Reason.HEADER_MISSING, repeated=Reason.HEADER_REPEATED)
        received = without_prefix(value, self._prefix, self._name)
        # compare_digest stops early where lengths differ: digests have one length, so that of the secret stays ours
        return matching_secret(secrets, hashlib.sha256(received).digest(), lambda key: hashlib.sha256(key).digest())
