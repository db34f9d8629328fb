"""Object storage in a local folder or an S3-compatible bucket: create-if-absent, ranged get, list, delete."""

from __future__ import annotations

from pipeline.storage.any_store import MeteredStore
from pipeline.storage.local import LocalStore
from pipeline.storage.protocols import (
    ObjectInfo,
    ObjectNotFound,
    ObjectStore,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    check_key,
)
from pipeline.storage.s3 import S3Store
from pipeline.storage.settings import LocalSettings, S3Settings, StoreSettings

__all__ = [
    "LocalSettings",
    "LocalStore",
    "MeteredStore",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "S3Settings",
    "S3Store",
    "StoreForbidden",
    "StoreFull",
    "StoreSettings",
    "StoreUnavailable",
    "check_key",
    "open_store",
]


def open_store(settings: LocalSettings | S3Settings) -> ObjectStore:
    """Return the configured store. It contacts nothing before its first call; make that call ``check``.

    Raises:
        FatalError: The configured ``ca_file`` cannot be read.
    """
    return LocalStore(settings.path) if isinstance(settings, LocalSettings) else S3Store(settings)
