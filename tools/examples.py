"""``schemas/examples/``: one synthetic value of each contract, the same each time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from uuid import UUID

from pipeline.contracts import (
    AuditAction,
    AuditEvent,
    BatchChunk,
    BatchCompleted,
    BatchFailed,
    BatchProcessed,
    BatchUploaded,
    CallbackBody,
    Topic,
)
from pipeline.sandbox.weavr.bodies import body_of
from tools.contract_table import Contract

_JOB: Final = UUID("cffde776-1d2a-4614-8023-a5148e411462")
_MERCHANT: Final = UUID("5b2a9d53-0c42-4d5c-8f4e-2f3f3a1d9c10")
_AT: Final = datetime(2026, 1, 22, 22, 43, 59, 295_000, tzinfo=UTC)
_OF_THE_JOB: Final[Mapping[str, Any]] = {
    "integration": "acme",
    "job_guid": _JOB,
    "merchant_guid": _MERCHANT,
    "partner_reference_id": "2026-01-batch-7",
    "announcement": "9f86d081884c7d65",
    "at": _AT,
}
_COUNTS: Final[Mapping[str, int]] = {"records": 1000, "records_ok": 998, "records_failed": 2, "result_bytes": 48_213}

_REQUESTED: Final[Mapping[str, Any]] = {
    "job_guid": str(_JOB),
    "partner_reference_id": "2026-01-batch-7",
    "merchant_guid": str(_MERCHANT),
    "external_location_ids": ["store-17", "store-18"],
    "record_count": 1000,
    "input_file_url": "https://batches.ecs.example/in/7.csv?X-Amz-Signature=synthetic",
    "result_upload_url": "https://batches.ecs.example/out/7.csv?X-Amz-Signature=synthetic",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": "https://api.ecs.example/card-batch-jobs/7/upload-confirmation",
}

_OURS: Final = {
    Topic.BATCH_CHUNKS: BatchChunk(**_OF_THE_JOB, generation="1b4f0e9851971998", number=17),
    Topic.BATCH_PROCESSED: BatchProcessed(**_OF_THE_JOB, **_COUNTS, generation="1b4f0e9851971998", parts=1),
    Topic.BATCH_UPLOADED: BatchUploaded(**_OF_THE_JOB, **_COUNTS, result_etag='"d41d8cd98f00b204e9800998ecf8427e"'),
    Topic.BATCH_FAILED: BatchFailed(
        **_OF_THE_JOB, reason="csv_unterminated_quote", error_message="The file ends inside a quoted field"
    ),
    Topic.BATCH_COMPLETED: BatchCompleted(
        **_OF_THE_JOB, outcome="completed", told="confirmed", records_processed=1000, records_failed=2
    ),
    Topic.AUDIT_EVENTS: AuditEvent(
        id=AuditEvent.id_of(AuditAction.JOB_PROCESSED, "acme", str(_JOB), "1"),
        action=AuditAction.JOB_PROCESSED,
        at=_AT,
        actor="process",
        integration="acme",
        job_guid=_JOB,
        detail={"records": 1000, "records_failed": 2},
    ),
    "callback": CallbackBody(success=True, records_processed=1000, records_failed=2),
}


def example(contract: Contract) -> dict[str, Any]:
    """Return the contract's example as a JSON value.

    Those of a provider are made from what the provider describes, never from our models: an example that fits its
    schema says that the schema fits the description.
    """
    if contract.provider == "weavr":
        return body_of(contract.path, Random(contract.name))  # noqa: S311 - it must be the same each time
    if contract.provider == "ecs":
        return dict(_REQUESTED)
    found: dict[str, Any] = _OURS[contract.name].model_dump(mode="json")
    return found
