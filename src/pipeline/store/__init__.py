"""The job store: announcements, parts, receipts; a local folder or an S3-compatible bucket."""

from pipeline.store.errors import ObjectNotFound, StoreUnavailable
from pipeline.store.protocols import ObjectInfo, ObjectStore

__all__ = ["ObjectInfo", "ObjectNotFound", "ObjectStore", "StoreUnavailable"]
