"""Handles the records of jobs for a stage: with the job in every log line, and with each error treated per job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from pipeline.contracts import Record, first_values, parse_job_key
from pipeline.jobs.stage import StageContext
from pipeline.kafka.protocols import Handle, Lease, OnArrival
from pipeline.observability import parse_traceparent


class JobHandler:
    """The handler that a consumer calls for one stage. It calls the stage for each record.

    Every log line that is written meanwhile carries the trace id, the integration and the job.

    Args:
        context: The surroundings of the stage.
        handle: The stage's work for one record.
        arrive: The stage's work for a record that has just arrived, if it has any.
    """

    def __init__(self, context: StageContext, handle: Handle, *, arrive: OnArrival | None = None) -> None:
        self._context = context
        self._handle = handle
        self._arrive = arrive

    async def handle(self, record: Record, lease: Lease) -> None:
        """Do the stage's work for a record; see :data:`pipeline.kafka.protocols.Handle`."""
        with _record_in_logs(record):
            await self._handle(record, lease)

    @property
    def on_arrival(self) -> OnArrival | None:
        """What the consumer calls with a record that has just arrived; None if the stage does nothing then."""
        arrive = self._arrive
        if arrive is None:
            return None

        async def arrived(record: Record) -> None:
            with _record_in_logs(record):
                await arrive(record)

        return arrived


@contextmanager
def _record_in_logs(record: Record) -> Iterator[None]:
    bound: dict[str, str] = {}
    trace = parse_traceparent(first_values(record.headers).get("traceparent"))
    if trace is not None:
        bound["trace_id"] = trace.trace_id
    job = parse_job_key(record.key)
    if job is not None:
        bound["integration"], bound["job_guid"] = job[0], str(job[1])
    with structlog.contextvars.bound_contextvars(**bound):
        yield
