"""Identities that survive a restart: the idempotency keys of cards, and the hashes that name a job's parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.contracts import stable_hash
from pipeline.jobs.csv_engine.settings import CsvLimits, CsvSettings
from pipeline.jobs.processors.loading import LoadedProcessor

_RECORD_DIGITS: Final = 12
_KEY_LENGTH: Final = 36
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)

_FORMAT: Final = "2"
"""Increase it when the engine's result for equal input changes: a new engine must never continue an old one's parts.
"""


def key_prefix(integration: str, job_guid: UUID) -> str:
    """Return the common prefix of a job's idempotency keys: everything but the last twelve digits."""
    digits = stable_hash("card", integration, str(job_guid))
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-"


def idempotency_key(integration: str, job_guid: UUID, record: int) -> str:
    """Return the key of one card, the same on every restart, in the form of a UUID (version 8, RFC 9562).

    The last twelve hex digits are the record number, the others a hash of integration and job.
    """
    return f"{key_prefix(integration, job_guid)}{record:012x}"


def idempotency_keys(prefix: str, records: NDArray[np.int64]) -> pa.StringArray:
    """Return the keys of many cards of one job at once."""
    text = np.empty((records.size, _KEY_LENGTH), np.uint8)
    text[:, :-_RECORD_DIGITS] = np.frombuffer(prefix.encode(), np.uint8)
    for digit in range(_RECORD_DIGITS):
        text[:, -1 - digit] = _HEX[(records >> (4 * digit)) & 15]
    offsets = np.arange(records.size + 1, dtype=np.int32) * _KEY_LENGTH
    return pa.StringArray.from_buffers(records.size, pa.py_buffer(offsets), pa.py_buffer(text))


def group_key(prefix: str, records: Sequence[int], answered: int) -> str:
    """Return the key of one request for several cards of a job, in the form of a UUID.

    It is the same after every restart and in every worker, because a chunk is always divided in the same way.

    Args:
        prefix: Of the job's keys, by :func:`key_prefix`.
        records: The record numbers of the cards.
        answered: How many requests for these cards were answered before. What the service remembers under an earlier
            key must not answer the cards that it asks to send again.
    """
    digits = stable_hash("cards", prefix, ",".join(map(str, records)), str(answered))
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def plan_hash(settings: CsvSettings, limits: CsvLimits, processor: LoadedProcessor) -> str:
    """Return a hash (16 hex digits) of all settings that decide the bytes of a job's parts.

    Another format, chunk limit, processor, processor version or processor option gives another plan. Retries and
    concurrency do not.
    """
    facts = {
        "format": _FORMAT,
        "chunk": [limits.chunk_bytes, limits.chunk_records],
        "csv": settings.model_dump(mode="json"),
        "processor": [processor.settings.name, processor.version, processor.settings.options],
    }
    return stable_hash("plan", json.dumps(facts, sort_keys=True))[:16]


def generation(etag: str, size: int | None, plan: str) -> str:
    """Return the name (16 hex digits) of the parts that a plan makes from a file.

    The ETag and the size that the file's server sent identify the file.
    """
    return stable_hash("generation", etag, "" if size is None else str(size), plan)[:16]
