"""From settings to a store."""

from __future__ import annotations

from pipeline.storage.local import LocalStore
from pipeline.storage.protocols import ObjectStore
from pipeline.storage.s3 import S3Store
from pipeline.storage.settings import LocalSettings, S3Settings


def open_store(settings: LocalSettings | S3Settings) -> ObjectStore:
    """Return the configured store; nothing is contacted before its first call (``check`` is a good one).

    Raises:
        FatalError: The configured ``ca_file`` cannot be read.
    """
    return LocalStore(settings.path) if isinstance(settings, LocalSettings) else S3Store(settings)
