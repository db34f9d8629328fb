"""Resumes the jobs that wait for a host as soon as the host works again."""

from __future__ import annotations

from typing import Final, NoReturn

import structlog

from pipeline.errors import Overloaded, TransientError
from pipeline.jobs.parking import Parking
from pipeline.outbound import CircuitPurpose, Circuits

log = structlog.get_logger(__name__)

_STAGES: Final[dict[CircuitPurpose, tuple[str, ...]]] = {
    "input": ("process", "chunks"),
    "cards": ("process", "chunks"),
    "result": ("upload",),
    "callback": ("confirm",),
}


async def resume_after_outages(circuits: Circuits, parking: Parking) -> NoReturn:
    """Whenever a circuit closes, resume the jobs that were parked because it was open; run it beside a stage.

    If the store is not available, no job is lost: each continues by itself when its wait is over.
    """
    while True:
        integration, purpose = await circuits.closed.get()
        for stage in _STAGES[purpose]:
            await _resume(parking, integration, stage)


async def _resume(parking: Parking, integration: str, stage: str) -> None:
    try:
        count = await parking.resume(integration, stage=stage, code="circuit_open")
    except (TransientError, Overloaded) as error:
        log.warning("resume_failed", integration=integration, stage=stage, code=error.code, message=error.message)
    else:
        log.info("jobs_resumed", integration=integration, stage=stage, count=count)
