"""Damage to the stored objects of one job, and objects that the pipeline did not make."""

from __future__ import annotations

from typing import Final

import structlog

from pipeline.errors import PermanentError

log = structlog.get_logger(__name__)

_REPORTED_KEPT: Final = 1000
"""How many objects are remembered as logged. The deadline watch sees the same ones every few seconds."""


class JobDamaged(PermanentError):
    """An object of one job is unreadable, changed or missing: the job fails, or waits if it cannot even be decided.

    The partner may read the message, so it does not name the object.

    Attributes:
        key: The object, for the log and for commands.
        found: What is wrong with it.
    """

    def __init__(self, key: str, what: str) -> None:
        super().__init__("job_damaged", f"Stored data of this job is damaged ({what}), so it cannot be continued.")
        self.key = key
        self.found = what


class Findings:
    """Logs each damaged or foreign object once."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def foreign(self, key: str) -> None:
        """Log a warning about an object whose key the pipeline never creates; leave the object as it is."""
        if self._is_news(key):
            log.warning("store_object_foreign", key=key)

    def damaged(self, key: str, what: str) -> JobDamaged:
        """Log a damaged object, and return the error about its job."""
        if self._is_news(key):
            log.error("store_object_damaged", key=key, found=what)
        return JobDamaged(key, what)

    def _is_news(self, key: str) -> bool:
        if key in self._reported:
            return False
        if len(self._reported) >= _REPORTED_KEPT:
            self._reported.clear()
        self._reported.add(key)
        return True
