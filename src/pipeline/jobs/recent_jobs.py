"""Remembers a job's objects for a moment, so that a stage does not read them from the store twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pipeline.jobs.job_store import Announced, JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.receipts import Announcement, JobIdentity, NotificationResult, Outcome, Processed
from pipeline.storage import ObjectNotFound, StoreUnavailable

FRESH_SECONDS: Final = 1.0
"""How long a listing is used. A stage notices an outcome or new URLs at most this much later."""

_KEYS_RECALLED: Final = 100
"""Objects of a job that a later try may recall: what is remembered of a job must stay small."""


class RecentJobs(JobStore):
    """The job store for the work on one message about one job (docs/explanation/delivery.md).

    One listing of the job's folder shows which objects are missing, and which announcements exist. It is used only for
    a moment; after that, the stage sees a renewed announcement, an outcome, or the work of another worker. The
    monotonic clock measures the moment, so a worker that was frozen lists again. Every creation goes to the store,
    which decides between two workers.

    Args:
        store: The store.
        ref: The job's attempt. Only use this store for this job.
        now: Returns the time, in UTC. Close to a deadline, announcements are always read from the store.
        seconds: How long a listing is used.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: JobStore,
        ref: JobRef,
        *,
        now: Callable[[], datetime],
        seconds: float = FRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store.objects, store.cipher, store.findings)
        self.inline_bytes = store.inline_bytes
        self._ref = ref
        self._now = now
        self._seconds = seconds
        self._clock = clock
        self._keys: frozenset[str] = frozenset()
        self._looked = -math.inf
        self._undecided = -math.inf
        self._listed: tuple[float, list[str]] = -math.inf, []
        self._read: dict[str, Announcement] = {}
        self._recalled = self._opened = False

    async def load(self) -> None:
        """List the objects of the job."""
        self._recalled = False
        began = self._clock()
        self._see(await self.keys(self._ref.root), began)

    def created(self, announcement: Announcement, at: float) -> None:
        """Note that this process created the job, so that the store has no other objects of it.

        Args:
            announcement: The job's only announcement.
            at: When it was created, on the monotonic clock.
        """
        key = self.announcement_key(self._ref, announcement)
        self._read[key] = announcement
        self._see([f"{self._ref.root}job.json", key], at)

    @property
    def untouched(self) -> bool:
        """Whether no input was opened, and the job has few objects and no part: a later try may :meth:`recall` this."""
        parts = any(key.startswith(self._ref.parts()) for key in self._keys)
        return not self._opened and not parts and 0 < len(self._keys) <= _KEYS_RECALLED

    def recall(self, earlier: RecentJobs) -> None:
        """Take over what an earlier try saw, until :meth:`refresh` or :meth:`forget`: for a job that waited meanwhile.

        It may have changed. So nothing may be decided, and no card given to a processor, before ``refresh``.
        """
        self._read = dict(earlier._read)
        self._see(sorted(earlier._keys), self._clock())
        self._recalled = True

    async def refresh(self) -> bool:
        """See JobStore."""
        self._opened = True
        if not self._recalled:
            return False
        before = self._lasting
        await self.load()
        return self._lasting != before

    async def announced(self, ident: str) -> Announced | None:
        """Return what storing an announcement of the job again would return, as far as the last look knows it."""
        keys = self._announcements_among(sorted(self._keys), self._ref)
        key = next((key for key in keys if key.endswith(f"-{ident}.json")), None)
        if key is None:
            return None
        if len(keys) > 1:
            identity = await self._find(f"{self._ref.root}job.json", JobIdentity)
            if identity is None:
                return None
            if identity.announcement != ident:
                return Announced(self._ref, await self._announcement(key), "renewed")
        return Announced(self._ref, await self._announcement(key), "new")

    @property
    def _lasting(self) -> frozenset[str]:
        return frozenset(key for key in self._keys if not key.startswith(self._ref.waiting))

    def know(self, announcement: Announcement) -> None:
        """Note a stored announcement, so that it is found even if a listing of the store lags behind."""
        self._read.setdefault(self.announcement_key(self._ref, announcement), announcement)

    @property
    def fresh(self) -> bool:
        """Whether the last listing may still be used."""
        return self._is_fresh(self._looked)

    def forget(self) -> None:
        """See JobStore."""
        self._recalled = False
        self._looked = self._undecided = -math.inf
        self._listed = -math.inf, []

    async def newest(self, ref: JobRef) -> Announcement:
        """See JobStore.

        Raises:
            StoreUnavailable: None is listed, although there is a message about the job.
        """
        remembered = self._is_fresh(self._listed[0])
        try:
            found = await super().newest(ref)
        except ObjectNotFound as error:
            raise StoreUnavailable(
                f"{ref.root}announcements/ holds no announcement, although the job was announced: the storage must "
                "list an object as soon as it is created"
            ) from error
        if remembered and (found.deadline - self._now()).total_seconds() <= 2 * self._seconds:
            self._recalled, self._listed = False, (-math.inf, [])
            found = await super().newest(ref)
        return found

    async def outcome(self, ref: JobRef) -> Outcome | None:
        """See JobStore."""
        if self._is_fresh(self._undecided):
            return None
        began = self._clock()
        found = None if self._lacks(f"{ref.work}outcome.json") else await super().outcome(ref)
        if found is None:
            self._undecided = began
        return found

    async def decide(self, ref: JobRef, wanted: Outcome) -> Outcome:
        """See JobStore."""
        self.forget()
        return await super().decide(ref, wanted)

    async def processed(self, ref: JobRef) -> Processed | None:
        """See JobStore."""
        return None if self._lacks(f"{ref.work}processed.json") else await super().processed(ref)

    async def finished_chunks(self, ref: JobRef) -> dict[str, set[int]]:
        """See JobStore."""
        return self.chunks_among(ref, sorted(self._keys)) if self.fresh else await super().finished_chunks(ref)

    async def notification_result(self, ref: JobRef, again: str | None = None) -> NotificationResult | None:
        """See JobStore."""
        folder = ref.notification(again)
        if self._lacks(f"{folder}confirmed.json") and self._lacks(f"{folder}refused.json"):
            return None
        return await super().notification_result(ref, again)

    async def notification_attempts(self, ref: JobRef, again: str | None = None) -> tuple[int, bool]:
        """See JobStore."""
        if self.fresh and not any(key.startswith(f"{ref.notification(again)}told/") for key in self._keys):
            return 0, False
        return await super().notification_attempts(ref, again)

    def has_waited(self) -> bool:
        """Return whether a record of the job may have waited, according to the last listing."""
        return not self.fresh or any(key.startswith(self._ref.waiting) for key in self._keys)

    async def _announcement_keys(self, ref: JobRef) -> list[str]:
        at, keys = self._listed
        if not self._is_fresh(at):
            began = self._clock()
            keys = await super()._announcement_keys(ref)
            self._listed = began, keys
        return sorted({*keys, *self._read})

    async def _announcement(self, key: str) -> Announcement:
        if key not in self._read:
            self._read[key] = await super()._announcement(key)
        return self._read[key]

    def _see(self, keys: Sequence[str], at: float) -> None:
        self._keys = frozenset(keys)
        self._looked = at
        self._listed = at, self._announcements_among(sorted(keys), self._ref)
        self._undecided = -math.inf if f"{self._ref.work}outcome.json" in self._keys else at

    def _lacks(self, key: str) -> bool:
        """Return whether the last listing may be used and does not have this object."""
        return self.fresh and key not in self._keys

    def _is_fresh(self, at: float) -> bool:
        return at > -math.inf if self._recalled else self._clock() - at < self._seconds
