"""Handles the records of jobs for a stage: with the job in every log line, and with each error treated per job."""

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
"""Code of a job that failed in a way that nobody expects; it is retried, then parked."""

_TRIES: Final = 3
"""Tries in the process before a job is parked: most faults pass in seconds."""
_BROKEN_IN_A_ROW: Final = 5
_DAMAGED_SECONDS: Final = 900.0
"""How long a job waits whose outcome or announcements are damaged: somebody has to restore them."""

_SHORT_PAUSE_SECONDS: Final = 10.0
"""A job that must not be tried before this has passed is parked at once."""


_LONGEST_PAUSE_SECONDS: Final = 366 * 86_400.0
"""A longer pause might end beyond the last date."""


class JobHandler:
    """The handler that a consumer calls for one stage. It calls the stage for each record.

    Every log line that is written meanwhile carries the trace id, the integration and the job. A job that cannot be
    done now is parked: after three tries, or at once if the pause is long or no try makes sense.

    Args:
        context: The surroundings of the stage.
        handle: The stage's work for one record.
        parking: Parks jobs.
        arrive: The stage's work for a record that has just arrived, if it has any.
        switches: Says which integrations are paused; None for a stage that goes on in a pause.
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
            FatalError: As the stage raised it; or several jobs in a row failed in a way that nobody expects.
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
                    raise _tried_soon(error) from error  # a wrong clock would say a wrong time when to try again
                await lease.ensure()
                if not await self._park(record, error):
                    raise
            else:
                self._broken.clear()

    def _may_wait(self, record: Record) -> bool:
        """Return whether a try of this record may come too early, so that the store must be asked.

        That is a copy of a parked record. CONFIRM looks itself, with the rest of the job. A repeat that PROCESS or
        UPLOAD tries early does no harm, and each look costs a request.
        """
        stage = self._context.stage
        copy = RETRY_COUNT_HEADER in first_values(record.headers)
        return copy and stage != "confirm" and not self._parking.is_next(record, stage)

    async def _contained(self, record: Record, lease: Lease) -> None:
        """Let the stage handle the record; what must not end the process becomes a TransientError about the job."""
        job = parse_job_key(record.key)
        if self._switches is not None and job is not None:
            await self._switches.ensure_running(job[0])
        try:
            return await self._handle(record, lease)
        except JobDamaged as damage:
            # the stage would have failed the job if it could still be decided
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
        """Stop the process if several different jobs in a row are parked so: then it is not the jobs."""
        if error.code != INTERNAL_ERROR:
            return
        if first_values(record.headers).get(RETRY_CODE_HEADER) == INTERNAL_ERROR:
            return  # known already; it comes back until it is fixed or its deadline passes
        self._broken.add("/".join(map(str, parse_job_key(record.key) or (record.key,))))
        if len(self._broken) >= _BROKEN_IN_A_ROW:
            raise FatalError(
                "internal_errors_in_a_row",
                f"{len(self._broken)} different jobs in a row failed with errors that nobody expects, the last one: "
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
            self._note_broken(record, error)  # else it waited before; perhaps the process ended because of it
        return True

    @property
    def on_arrival(self) -> OnArrival | None:
        """What the consumer calls with a record that has just arrived; None if the stage does nothing then."""
        arrive = self._arrive
        if arrive is None:
            return None

        async def arrived(record: Record) -> None:
            # its turn comes at once, and parks it
            with _record_in_logs(record), suppress(Untried, JobDamaged):
                try:
                    await arrive(record)
                except TransientError as error:
                    # only its turn can park it; without the store its turn could do nothing either
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
    """Return the pause that an error asks for; None if it is no number: a plug-in may have made the error."""
    if not isinstance(asked, int | float) or not math.isfinite(asked):
        return None
    return min(max(float(asked), 0.0), _LONGEST_PAUSE_SECONDS)


def _tried_soon(error: TransientError) -> TransientError:
    """Return the error for a record that stays with the consumer, where nothing ends a long pause early."""
    return Untried(error.code, error.message) if isinstance(error, Untried) else error


@contextmanager
def _record_in_logs(record: Record) -> Iterator[None]:
    with structlog.contextvars.bound_contextvars(**record_fields(record)):
        yield
