"""Handles the records of jobs for a stage. It adds the job to every log line, and keeps each error to its job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from pipeline.contracts import RETRY_CODE_HEADER, RETRY_COUNT_HEADER, Record, first_values, parse_job_key
from pipeline.errors import FatalError, LeaseLost, Overloaded, PermanentError, PipelineError, TransientError, Untried
from pipeline.jobs.announcements import IntegrationUnknown
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.parking import Parking
from pipeline.jobs.stage import StageContext
from pipeline.jobs.switches import Switches
from pipeline.kafka.protocols import Handle, Lease, OnArrival
from pipeline.observability import record_fields
from pipeline.plugins import fault_of, is_cancellation
from pipeline.storage import StoreUnavailable

log = structlog.get_logger(__name__)

INTERNAL_ERROR: Final = "internal_error"
"""Code of a job that failed with an unexpected error; it is retried, then parked."""

_TRIES: Final = 3
"""Tries in the process before a job is parked: most faults pass in seconds."""
_BROKEN_IN_A_ROW: Final = 5
_DAMAGED_SECONDS: Final = 900.0
"""How long a job waits if its outcome or announcements are damaged: an operator has to restore them."""

_SHORT_PAUSE_SECONDS: Final = 10.0
"""A job that must wait longer than this is parked at once."""


_LONGEST_PAUSE_SECONDS: Final = 366 * 86_400.0
"""A longer pause might end beyond the last date."""


class JobHandler:
    """Handler of one stage's consumer: it calls the stage for each record.

    Every log line of the stage carries the trace id, the integration and the job. A job that cannot be done now is
    parked: after three tries, or at once if the pause is long or another try cannot help.

    Args:
        context: Dependencies of the stage.
        handle: The stage's work for one record.
        parking: Parks jobs.
        arrive: The stage's work for a record that has just arrived, if it has any.
        switches: Shows which integrations are paused; None for a stage that a pause does not stop.
    """

    def __init__(
        self,
        context: StageContext,
        handle: Handle,
        parking: Parking,
        *,
        arrive: OnArrival | None = None,
        switches: Switches | None = None,
    ) -> None:
        self._context = context
        self._handle = handle
        self._parking = parking
        self._arrive = arrive
        self._switches = switches
        self._broken: set[str] = set()

    async def handle(self, record: Record, lease: Lease) -> None:
        """Do the stage's work for a record; see :data:`pipeline.kafka.protocols.Handle`.

        Raises:
            FatalError: The stage raised it, or several jobs in a row failed with unexpected errors.
        """
        with _record_in_logs(record):
            stage = self._context.stage
            if self._may_wait(record) and await self._parking.waits(record, stage):
                log.info("job_waits_already", stage=stage)
                return
            try:
                await self._contained(record, lease)
            except TransientError as error:
                error.retry_after = _seconds(error.retry_after)
                if _retried_here(record, error):
                    raise
                if not self._context.clock_ok:
                    raise _tried_soon(error) from error  # by a wrong clock, the job would be due at a wrong time
                await lease.ensure()
                if not await self._park(record, error):
                    raise
            else:
                self._broken.clear()

    def _may_wait(self, record: Record) -> bool:
        """Return whether this record may be a copy that must still wait; then the store must be asked.

        Only a copy of a parked record may be. CONFIRM checks this itself, together with the rest of the job. Any other
        record that PROCESS or UPLOAD tries early does no harm, and the check costs a request.
        """
        stage = self._context.stage
        copy = RETRY_COUNT_HEADER in first_values(record.headers)
        return copy and stage != "confirm" and not self._parking.is_next(record, stage)

    async def _contained(self, record: Record, lease: Lease) -> None:
        """Let the stage handle the record; turn an unexpected error into a TransientError about the job."""
        job = parse_job_key(record.key)
        if self._switches is not None and job is not None:
            await self._switches.ensure_running(job[0])
        try:
            return await self._handle(record, lease)
        except JobDamaged as damage:
            # the stage could not fail the job: its outcome or announcements are damaged
            raise Untried(
                damage.code,
                f"{damage.key} is damaged ({damage.found}). Restore it from the store's versions or a backup.",
                retry_after=_DAMAGED_SECONDS,
            ) from None
        except (FatalError, LeaseLost, Overloaded, PermanentError, TransientError, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if is_cancellation(error):
                raise
            fault = fault_of(error)
        # outside the handler, so that the unknown error and the values in its frames are not chained
        log.error("job_handler_failed", stage=self._context.stage, error=fault.kind, frames=fault.lines)
        raise TransientError("internal_error", f"A fault of the pipeline or of a library: {fault}.")

    def _note_broken(self, record: Record, error: TransientError) -> None:
        """Stop the process if several different jobs in a row failed unexpectedly: then the jobs are not the cause."""
        if error.code != INTERNAL_ERROR:
            return
        if first_values(record.headers).get(RETRY_CODE_HEADER) == INTERNAL_ERROR:
            return  # counted already: it comes back until it is fixed or its deadline passes
        self._broken.add("/".join(map(str, parse_job_key(record.key) or (record.key,))))
        if len(self._broken) >= _BROKEN_IN_A_ROW:
            raise FatalError(
                "internal_errors_in_a_row",
                f"{len(self._broken)} different jobs in a row failed with unexpected errors, the last one: "
                f"{error.message} The jobs are parked; a restart may help, and the log has the frames of each error.",
            )

    async def _park(self, record: Record, error: TransientError) -> bool:
        begun = self._context.clock()
        waiting = await self._parking.park(record, self._context.stage, error)
        if waiting is None:
            return False
        integration = "unknown" if isinstance(error, IntegrationUnknown) else waiting.integration
        self._context.metrics.jobs_parked.labels(integration, waiting.stage, error.code).inc()
        log.warning(
            "job_parked",
            stage=waiting.stage,
            code=error.code,
            message=error.message,
            tries=record.attempt,
            waits=waiting.count,
            due=waiting.due.isoformat(),
        )
        if waiting.at >= begun:
            self._note_broken(record, error)  # else it waited before; perhaps it ended an earlier process
        return True

    @property
    def on_arrival(self) -> OnArrival | None:
        """Function that the consumer calls with each new record; None if the stage has none."""
        arrive = self._arrive
        if arrive is None:
            return None

        async def arrived(record: Record) -> None:
            # on these errors, the handler parks the record: its turn comes at once
            with _record_in_logs(record), suppress(Untried, JobDamaged):
                try:
                    await arrive(record)
                except TransientError as error:
                    # only the handler can park it, but without the store the handler could do nothing either
                    if isinstance(error, StoreUnavailable) or _retried_here(record, error):
                        raise
                except (PipelineError, SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    if is_cancellation(error):
                        raise

        return arrived


def _retried_here(record: Record, error: TransientError) -> bool:
    """Return whether the consumer tries again: the cause may pass in seconds."""
    if isinstance(error, Untried):
        return False
    return record.attempt < _TRIES and (error.retry_after or 0.0) <= _SHORT_PAUSE_SECONDS


def _seconds(asked: object) -> float | None:
    """Return the pause that an error asks for; None if it is not a number: a plug-in may have created the error."""
    if not isinstance(asked, int | float) or not math.isfinite(asked):
        return None
    return min(max(float(asked), 0.0), _LONGEST_PAUSE_SECONDS)


def _tried_soon(error: TransientError) -> TransientError:
    """Return the error of a record that stays in the consumer.

    It has no long pause, because nothing could end it early.
    """
    return Untried(error.code, error.message) if isinstance(error, Untried) else error


@contextmanager
def _record_in_logs(record: Record) -> Iterator[None]:
    with structlog.contextvars.bound_contextvars(**record_fields(record)):
        yield
