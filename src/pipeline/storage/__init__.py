"""Object storage: create-if-absent, ranged get, list, delete; on a local folder or an S3-compatible bucket."""

from pipeline.storage.errors import ObjectNotFound, StoreUnavailable
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.protocols import ObjectInfo, ObjectStore
from pipeline.storage.s3 import S3Store
from pipeline.storage.settings import LocalSettings, S3Settings, StoreSettings

__all__ = [
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
