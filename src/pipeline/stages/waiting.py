"""How many jobs of an integration may wait for a retry at once in one worker."""

from __future__ import annotations

from pipeline.errors import PermanentError
from pipeline.store.tree import JobRef


class Waiting:
    """The jobs that wait for a retry, by integration. Bounded, so that one broken partner cannot fill a worker."""

    def __init__(self) -> None:
        self._jobs: dict[str, set[JobRef]] = {}

    def add(self, ref: JobRef, limit: int) -> PermanentError | None:
        """Note that a job waits; return the error to fail it with where ``limit`` jobs wait already."""
        waiting = self._jobs.setdefault(ref.integration, set())
        if ref in waiting or len(waiting) < limit:
            waiting.add(ref)
            return None
        return PermanentError(
            "too_many_waiting_jobs",
            f"{limit} jobs of this integration are waiting for a retry already (limits.waiting_jobs); "
            "announce this job again when the cause has passed.",
        )

    def discard(self, ref: JobRef) -> None:
        """Note that a job no longer waits."""
        self._jobs.get(ref.integration, set()).discard(ref)
