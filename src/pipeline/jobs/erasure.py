"""Erases the parts of a job's receipts that may identify a card: texts, ETags of result files, signed URLs.

The receipts stay, with all fields that the stages decide by. So a repeated message still finds its step done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import WAITING_RECEIPT, JobRef
from pipeline.jobs.receipts import (
    Announcement,
    NotificationAnswer,
    NotificationResult,
    Outcome,
    Receipt,
    Waiting,
)

ERASED: Final = "The text was erased with the card data of the job."
"""Replaces an erased text, also in a callback that is sent again."""

_WORK: Final = r"(?:attempts/\d+/)?"
_NOTIFICATION: Final = _WORK + r"(?:again/[^/]+/)?"


def _outcome(found: Outcome) -> Outcome:
    if found.outcome == "completed":
        return found.model_copy(update={"result_etag": ""})  # its callback holds only counts
    # without an id the callback is built again from the message, if the partner asks for it once more
    return found.model_copy(update={"message": ERASED, "body": "", "request_id": "", "result_etag": ""})


_RECEIPTS: Final[tuple[tuple[re.Pattern[str], type[Receipt], Callable[[Any], Receipt]], ...]] = (
    (re.compile(_WORK + r"outcome\.json"), Outcome, _outcome),
    (
        re.compile(_NOTIFICATION + r"told/\d+\.answer\.json"),
        NotificationAnswer,
        lambda found: found.model_copy(update={"detail": ""}),
    ),
    (
        re.compile(_NOTIFICATION + r"(?:confirmed|refused)\.json"),
        NotificationResult,
        lambda found: found.model_copy(update={"detail": ""}),
    ),
)


async def erase_texts(jobs: JobStore, attempts: list[JobRef], at: datetime, *, dry_run: bool) -> int:
    """Erase texts, tags and URLs of a job whose partner was notified; return how many objects had any.

    A damaged object stays as it is. A job that still waits keeps its record.

    Args:
        jobs: The job store.
        attempts: All attempts of the job.
        at: The time.
        dry_run: Whether to count only.
    """
    root, erased = attempts[0].root, 0
    keys = await jobs.keys(root)
    for key in keys:
        with suppress(JobDamaged):
            erased += await _erase(jobs, key, key.removeprefix(root), dry_run=dry_run)
    for ref in () if dry_run else attempts:
        await jobs.drop_urls(ref, at)
    return erased


async def _erase(jobs: JobStore, key: str, name: str, *, dry_run: bool) -> bool:
    if WAITING_RECEIPT.fullmatch(name.removeprefix("waiting/")):
        return await _erase_wait(jobs, key, dry_run=dry_run)
    if name.startswith("announcements/"):
        announcement = await jobs.receipt(key, Announcement)
        return announcement is not None and not announcement.erased  # its URLs go below, with those of its attempt
    for pattern, model, without in _RECEIPTS:
        if pattern.fullmatch(name):
            found = await jobs.receipt(key, model)
            if found is None or (left := without(found)) == found:
                return False
            if not dry_run:
                await jobs.objects.replace(key, left.model_dump_json().encode())
            return True
    return False


async def _erase_wait(jobs: JobStore, key: str, *, dry_run: bool) -> bool:
    found = await jobs.receipt(key, Waiting)
    if found is None:
        return False
    if await jobs.is_filed(found.marker):
        left = found.model_copy(update={"message": ""})
        if left != found and not dry_run:
            await jobs.objects.replace(key, left.model_dump_json().encode())
        return left != found
    if not dry_run:
        await jobs.objects.delete(key)
    return True
