"""The notifications of a job in the store: each try, each answer, and the result."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.part_store import PartStore
from pipeline.jobs.receipts import NotificationAnswer, NotificationAttempt, NotificationResult

_TRY: Final = re.compile(r"(\d{4,})(\.answer)?\.json")


class NotificationStore(PartStore):
    """The callbacks of jobs, in any :class:`pipeline.storage.ObjectStore`."""

    async def notification_result(self, ref: JobRef, again: str | None = None) -> NotificationResult | None:
        """Return how a notification ended, if it did; a confirmation takes precedence over a refusal."""
        for result in ("confirmed", "refused"):
            found = await self._find(f"{ref.notification(again)}{result}.json", NotificationResult)
            if found is not None:
                return found
        return None

    async def final_result(self, ref: JobRef) -> NotificationResult | None:
        """Return how the notifications ended: a confirmation of any of them takes precedence over a refusal."""
        first = await self.notification_result(ref)
        if first is None or first.told == "confirmed":
            return first
        for again in await self.objects.folders(f"{ref.work}again/"):
            later = await self.notification_result(ref, again)
            if later is not None and later.told == "confirmed":
                return later
        return first

    async def notifies_again(self, ref: JobRef) -> bool:
        """Return whether a repeated notification has begun but not ended."""
        for again in await self.objects.folders(f"{ref.work}again/"):
            if await self.notification_result(ref, again) is None:
                return True
        return False

    async def record_result(
        self, ref: JobRef, receipt: NotificationResult, again: str | None = None
    ) -> NotificationResult:
        """Record how a notification ended; return the existing receipt."""
        return (await self._create(f"{ref.notification(again)}{receipt.told}.json", receipt))[1]

    async def notification_attempts(self, ref: JobRef, again: str | None = None) -> tuple[int, bool]:
        """Return how many callbacks were begun, and whether the answer of any of them is unknown."""
        begun: set[str] = set()
        answered: set[str] = set()
        prefix = f"{ref.notification(again)}told/"
        async for info in self.objects.list(prefix):
            found = _TRY.fullmatch(info.key.removeprefix(prefix))
            if found is None:
                self.findings.foreign(info.key)
                continue
            (answered if found[2] else begun).add(found[1])
        return len(begun), bool(begun - answered)

    async def attempt_at(self, ref: JobRef, number: int, again: str | None = None) -> datetime:
        """Return when a callback was begun."""
        return (await self._get(f"{ref.notification(again)}told/{number:04d}.json", NotificationAttempt)).at

    async def record_attempt(self, ref: JobRef, receipt: NotificationAttempt, again: str | None = None) -> bool:
        """Record a callback before it is sent; return False if another worker sends it."""
        won, _ = await self._create(f"{ref.notification(again)}told/{receipt.number:04d}.json", receipt)
        return won

    async def record_answer(self, ref: JobRef, receipt: NotificationAnswer, again: str | None = None) -> None:
        """Record an answer that did not confirm the callback."""
        await self._create(f"{ref.notification(again)}told/{receipt.number:04d}.answer.json", receipt)
