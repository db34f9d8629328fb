"""The signed URL of a job's file, from the newest announcement."""

from __future__ import annotations

from typing import Literal

from pipeline.jobs.announcements import JobRules
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.outcomes import OutcomeExists
from pipeline.jobs.stage import StageContext
from pipeline.jobs.transfer import SignedUrl, UrlSource, signed_url
from pipeline.kafka.protocols import Lease


def current_url(
    context: StageContext,
    ref: JobRef,
    rules: JobRules,
    field: Literal["input_file_url", "result_upload_url"],
    lease: Lease | None = None,
) -> UrlSource:
    """Return a function that returns the current URL; a download or upload calls it before each try.

    The function raises OutcomeExists if the job's outcome was decided meanwhile. From the second call on it reads the
    store, not the memory: a try has failed, and unless there is a new URL, the job fails.

    Args:
        context: Dependencies of the stage.
        ref: The job's attempt.
        rules: The rules of the job's integration.
        field: Which URL.
        lease: Checked before each try, if given.
    """
    asked = False

    async def url() -> SignedUrl:
        nonlocal asked
        if asked:
            context.jobs.forget()
        asked = True
        if lease is not None:
            await lease.ensure()
        if await context.jobs.outcome(ref) is not None:
            raise OutcomeExists
        request = (await context.jobs.newest(ref)).request
        return signed_url(
            getattr(request, field),
            expires_at=request.expires_at,
            margin_seconds=rules.limits.deadline_margin_seconds,
        )

    return url
