"""Events of bulk processes."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.wire import Id, Integer


class BulkOperationCount(WeavrObject):
    """The number of operations of a bulk process with one status."""

    status: known.BulkProcessOperationStatus | None = None
    count: Integer | None = None


class BulkProcessProgressEvent(WeavrEvent):
    """A bulk process ended, or stopped."""

    bulk_id: Id | None = None
    status: known.BulkProcessProgressStatus | None = None
    submitted_items_count: Integer | None = None
    operation_status_counts: tuple[BulkOperationCount, ...] | None = None
