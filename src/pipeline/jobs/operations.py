"""The actions of operators' commands on a job: cancel it, notify its partner again, begin a new attempt."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import JsonValue

from pipeline.errors import PermanentError
from pipeline.jobs.announcements import JobRules, announced_deadline
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import completed_record, outcome_record, repeated_announcement
from pipeline.jobs.outcomes import Counts, Decider, audit_outcome, failed_without_partner
from pipeline.jobs.parking import Parking
from pipeline.jobs.receipts import NotificationResult, Outcome
from pipeline.jobs.stage import StageContext

CANCELLED: Final = "cancelled"
"""Reason of a job that an operator cancelled."""

NOBODY_NOTIFIED: Final = "integration_removed"
"""Result code of a job that was closed although its partner cannot be notified."""


_ASK_ECS: Final = "Ask ECS to announce the job again with fresh URLs: that begins the new attempt without a command."


class Refused(PermanentError):
    """The job's state does not allow the command."""


async def check_cancel(jobs: JobStore, ref: JobRef, configured: Container[str]) -> None:
    """Check that the job can be cancelled.

    Args:
        jobs: The job store.
        ref: The job's attempt.
        configured: Names of the configured integrations.

    Raises:
        Refused: Its outcome is decided. If its integration is not configured, only a confirmed job is refused.
    """
    outcome = await jobs.outcome(ref)
    if outcome is None or outcome.reason == CANCELLED:
        return
    result = await jobs.final_result(ref)
    if ref.integration in configured or (result is not None and result.told == "confirmed"):
        raise Refused("job_decided", f"{_name(ref)} is decided: {outcome.outcome}; nothing is left to cancel")


async def check_notify(jobs: JobStore, ref: JobRef) -> Outcome:
    """Return the outcome of a job whose callback was refused.

    Raises:
        Refused: The partner was not notified yet, or has confirmed the outcome.
    """
    outcome, result = await jobs.outcome(ref), await jobs.final_result(ref)
    if outcome is None or result is None:
        raise _not_notified(ref)
    if result.told != "refused":
        raise Refused("callback_confirmed", f"{_name(ref)}: ECS has confirmed its outcome")
    if "callback_url" in ((await jobs.newest(ref)).erased or ()):
        raise Refused(
            "callback_url_erased",
            f"{_name(ref)}: its callback URL was erased from the store with its card data. Inform ECS yourself.",
        )
    return outcome


async def check_retry(
    jobs: JobStore, parking: Parking, ref: JobRef, rules: Mapping[str, JobRules], now: datetime
) -> Literal["resumes", "begins again"]:
    """Return how a job would be retried: a parked one resumes, a failed one begins again with a new attempt.

    Args:
        jobs: The job store.
        parking: Knows the parked jobs.
        ref: The job's latest attempt.
        rules: Rules of the configured integrations.
        now: The time.

    Raises:
        Refused: It cannot be retried; the message names an alternative.
    """
    name, configured = _name(ref), rules.get(ref.integration)
    if configured is None:
        raise Refused(
            "integration_removed",
            f"{name}: the settings lack its integration. Add [ecs.{ref.integration}] again: waiting jobs then continue "
            "without a command.",
        )
    if await parking.waiting(ref):
        return "resumes"
    outcome = await jobs.outcome(ref)
    if outcome is None:
        raise Refused(
            "job_in_work", f"{name} is in work and does not wait, so there is nothing to retry: see job show."
        )
    if outcome.outcome == "completed":
        raise Refused("job_completed", f"{name} is completed; if ECS refused the callback: pipeline job notify {name}")
    if configured.policies.reannouncement_after_failure != "new_attempt":
        raise Refused(
            "retry_not_agreed",
            f"{name} failed, and a second outcome of one job needs ECS's agreement: "
            f'policies.reannouncement_after_failure of {ref.integration} is "repeat_outcome". Ask ECS to announce the '
            'cards as a new job. Or agree on "new_attempt" with ECS, set it, and give the command again.',
        )
    newest = await jobs.newest(ref)
    if not newest.value:
        raise _urls_erased(ref)
    deadline = announced_deadline(newest.request, configured.limits.deadline_margin_seconds)
    if deadline <= now:
        raise Refused(
            "urls_expired", f"{name}: work with its URLs had to end at {deadline:%Y-%m-%d %H:%M:%S} UTC. {_ASK_ECS}"
        )
    return "begins again"


@dataclass(frozen=True, slots=True)
class Operations:
    """Changes jobs on behalf of an operator. Each method is safe to repeat.

    Attributes:
        context: Its stage is the operator, e.g. ``cli:alice``, who is the actor in outcomes and audit events.
        rules: Rules of the configured integrations.
        keep_failed_parts: How long to keep the parts of a job that failed.
        parking: Knows the parked jobs.
    """

    context: StageContext
    rules: Mapping[str, JobRules]
    keep_failed_parts: timedelta
    parking: Parking

    async def cancel(self, ref: JobRef) -> Outcome | None:
        """Fail a job as ``cancelled`` and publish the outcome, so that its partner is notified; return the outcome.

        Running work stops when it next checks the outcome: before a chunk, a download, an upload. A job whose
        integration the settings lack is closed without notifying its partner, because the settings do not say how. If
        no worker ever knew the integration, the job has only waited: its waits end, and it gets no outcome (None).

        Raises:
            Refused: The job has another outcome already, or no worker has read its announcement yet.
        """
        await check_cancel(self.context.jobs, ref, self.rules)
        rules = self.rules.get(ref.integration)
        if not await self.context.jobs.announcements(ref):
            if rules is not None:
                raise Refused(
                    "job_unread",
                    f"{_name(ref)}: no worker has read its announcement yet. The job is announced within a minute if "
                    "the workers run; then cancel it, so that ECS is notified.",
                )
            await self.parking.drop(ref)
            return None
        if rules is None:
            return await self._close(ref)
        error = PermanentError(
            CANCELLED, "The job was cancelled by the receiver of the announcement before it was finished."
        )
        counts = Counts(*await self.context.jobs.decided_cards(ref))
        trace = (await self.context.jobs.newest(ref)).traceparent
        outcome = await Decider(self.context).fail(ref, error, rules, counts=counts, traceparent=trace)
        if outcome.reason != CANCELLED:
            raise Refused("job_decided", f"{_name(ref)} was decided meanwhile: {outcome.outcome}")
        await self.parking.drop(ref)
        return outcome

    async def _close(self, ref: JobRef) -> Outcome:
        context, jobs = self.context, self.context.jobs
        announcement = await jobs.newest(ref)
        counts = Counts(*await jobs.decided_cards(ref))
        outcome = await jobs.decide(
            ref,
            failed_without_partner(
                announcement,
                CANCELLED,
                "The job was cancelled; nobody was notified, because its integration is not in the settings.",
                counts,
                decided_by=context.stage,
                at=context.clock(),
            ),
        )
        await audit_outcome(context, ref, outcome, traceparent=None)
        result = await jobs.final_result(ref) or await jobs.record_result(
            ref,
            NotificationResult(
                told="refused",
                tries=0,
                status=0,
                code=NOBODY_NOTIFIED,
                detail="the integration is not in the settings",
                at=context.clock(),
            ),
        )
        await context.publisher.publish(
            completed_record(ref, announcement, outcome, result, again=None, traceparent=announcement.traceparent)
        )
        await jobs.file("purge", ref, result.at + self.keep_failed_parts)
        await self.parking.drop(ref)
        await jobs.close(ref, outcome, result.at, keep_urls=True, newest=announcement)  # `job notify` needs them
        return outcome

    async def retry(self, ref: JobRef, identity: str) -> dict[str, JsonValue]:
        """Resume a parked job, or start a new attempt of a failed one. Call :func:`check_retry` first.

        Args:
            ref: The job's latest attempt.
            identity: Name of the retry. The same name starts only one new attempt.

        Raises:
            Refused: Its URLs were erased meanwhile, so there is nothing to announce.
        """
        context = self.context
        if await context.jobs.outcome(ref) is None or await self.parking.waiting(ref):
            return {"resumed": await self.parking.resume(ref), "attempt": ref.attempt}
        announcement = await context.jobs.newest(ref)
        if not announcement.value:
            raise _urls_erased(ref)
        await context.publisher.publish(
            repeated_announcement(ref, announcement, identity=identity, actor=context.stage, at=context.clock())
        )
        return {"resumed": 0, "attempt": ref.attempt + 1}

    async def notify(self, ref: JobRef, again: str) -> Outcome:
        """Make CONFIRM send the callback again; return the outcome.

        Call :func:`check_notify` first. The body stays the same.

        Args:
            ref: The job's attempt.
            again: Name of the repeated notification. The same name sends only one notification.

        Raises:
            Refused: The job has no outcome.
        """
        outcome = await self.context.jobs.outcome(ref)
        if outcome is None:
            raise _not_notified(ref)
        newest = await self.context.jobs.newest(ref)
        await self.context.publisher.publish(outcome_record(ref, newest, outcome, newest.traceparent, again))
        return outcome


def _not_notified(ref: JobRef) -> Refused:
    return Refused("job_not_notified", f"ECS has not been notified of {_name(ref)} yet; the confirm stage will do it")


def _urls_erased(ref: JobRef) -> Refused:
    return Refused("urls_erased", f"{_name(ref)}: its URLs were erased from the store after it ended. {_ASK_ECS}")


def _name(ref: JobRef) -> str:
    return f"{ref.integration}/{ref.job_guid}"
