"""What a storage can answer instead of doing what was asked."""

from __future__ import annotations

from pipeline.errors import PermanentError, TransientError


class StoreUnavailable(TransientError):
    """The storage did not do it, or its answer was lost. Repeating is safe: creations are resolved by reading back."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Say what failed and what to do; ``message`` names keys and folders, never credentials."""
        super().__init__("store_unavailable", message, retry_after=retry_after)


class ObjectNotFound(PermanentError):
    """There is no object under this key.

    Attributes:
        key: The key that was asked for.
    """

    def __init__(self, key: str) -> None:
        """Name the key."""
        super().__init__("object_not_found", f"The store holds no object {key!r}")
        self.key = key
