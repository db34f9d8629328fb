"""Object storage in a local folder or an S3-compatible bucket: create-if-absent, ranged get, list, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.on_demand import on_demand
from pipeline.storage.any_store import MeteredStore
from pipeline.storage.protocols import (
    ObjectInfo,
    ObjectNotFound,
    ObjectStore,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    check_key,
    is_key,
)
from pipeline.storage.settings import LocalSettings, S3Settings, StoreSettings

if TYPE_CHECKING:
    from pipeline.storage.local import LocalStore
    from pipeline.storage.s3 import S3Store
else:
    __getattr__ = on_demand(
        __name__,
        local="LocalStore",
        s3="S3Store",
    )

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
    "is_key",
    "open_store",
]


def open_store(settings: LocalSettings | S3Settings) -> ObjectStore:
    """Return the configured store. It contacts nothing before its first call; make that call ``check``.

    Raises:
        FatalError: The configured ``ca_file`` cannot be read.
    """
    if isinstance(settings, LocalSettings):
        from pipeline.storage.local import LocalStore  # noqa: PLC0415 - only the store that is configured is loaded

        return LocalStore(settings.path)
    from pipeline.storage.s3 import S3Store  # noqa: PLC0415 - the same

    return S3Store(settings)
