"""The job store: announcements, parts, receipts; a local folder or an S3-compatible bucket."""

from pipeline.store.errors import ObjectNotFound, StoreUnavailable
from pipeline.store.jobs import JobStore
from pipeline.store.local import LocalStore
from pipeline.store.opening import open_store
from pipeline.store.protocols import ObjectInfo, ObjectStore
from pipeline.store.s3 import S3Store
from pipeline.store.settings import LocalSettings, S3Settings, StoreSettings
from pipeline.store.tree import JobRef

__all__ = [
    "JobRef",
    "JobStore",
    "LocalSettings",
    "LocalStore",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "S3Settings",
    "S3Store",
    "StoreSettings",
    "StoreUnavailable",
    "open_store",
]
