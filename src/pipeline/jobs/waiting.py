"""How many jobs of an integration may wait for a retry at once in one worker."""

from __future__ import annotations

from pipeline.errors import PermanentError
from pipeline.jobs.job_tree import JobRef
from pipeline.kafka.protocols import Lease


class Waiting:
    """The jobs that wait for a retry, by integration. Bounded, so that one broken partner cannot fill a worker.

    A job whose lease is lost waits no longer: it is another worker's, or comes again under a new lease.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, dict[JobRef, Lease]] = {}

    def add(self, ref: JobRef, lease: Lease, limit: int) -> PermanentError | None:
        """Note that a job waits; return the error to fail it with where ``limit`` jobs wait already."""
        waiting = self._jobs.setdefault(ref.integration, {})
        if ref not in waiting and len(waiting) >= limit:
            for gone in [one for one, held in waiting.items() if held.lost]:
                del waiting[gone]
        if ref in waiting or len(waiting) < limit:
            waiting[ref] = lease
            return None
        return PermanentError(
            "too_many_waiting_jobs",
            f"{limit} jobs of this integration are waiting for a retry already (limits.waiting_jobs); "
            "announce this job again when the cause has passed.",
        )

    def discard(self, ref: JobRef) -> None:
        """Note that a job no longer waits."""
        self._jobs.get(ref.integration, {}).pop(ref, None)
