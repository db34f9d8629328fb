"""The idempotency key of a callback."""

from __future__ import annotations

import hashlib
from uuid import NAMESPACE_URL, UUID, uuid5


def request_id(job_guid: UUID, body: bytes) -> str:
    """Return the ``X-Request-Id`` of a callback: the same job and body give the same id after any restart.

    eCard Systems gives the first answer again for an id and payload that it has seen within two hours, and refuses an
    id that comes with another payload; so another body must get another id.
    """
    digest = hashlib.sha256(body).hexdigest()
    return str(uuid5(NAMESPACE_URL, f"urn:card-pipeline:callback:{job_guid}:{digest}"))
