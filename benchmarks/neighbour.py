"""The effect of one integration's trouble on another: jobs of 10 cards beside 100 jobs without progress.

Ours and the peer are one pipeline on Apache Kafka, with two workers of PROCESS: the peer is the integration alone, ours
is the same integration while a hundred jobs of another meet a silent host, a processor of 5 s a card, or a storage that
answers 503. The rows are jobs per second of the median job (the inverse of its time from announcement to callback).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from support.brokers import Broker
    from support.flow_process import Launch
    from support.neighbours import Trouble

JOBS: Final = 60
TROUBLED: Final = 100
ROUNDS_AT_MOST: Final = 1
"""A round takes minutes; its rows are medians of 60 jobs."""
AT_MOST: Final = 90.0
"""Seconds after which a job counts as done: far above every floor."""
_SETTLED: Final = 5.0
"""Seconds that the troubled jobs need to take everything they can get."""

_ROWS: Final = ("neighbour, silent host", "neighbour, slow processor", "neighbour, failing storage")
FLOORS: Final = dict.fromkeys(_ROWS, 0.33)


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return one row of (ours, peer) for each kind of trouble: jobs per second of the median job."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path
    from support.flow_process import environment  # noqa: PLC0415
    from support.neighbours import FAILING_STORAGE, SILENT_HOST, SLOW_PROCESSOR  # noqa: PLC0415
    from support.prefork import running_prefork  # noqa: PLC0415

    troubles = dict(zip(_ROWS, (SILENT_HOST, SLOW_PROCESSOR, FAILING_STORAGE), strict=True))
    with running_apache_kafka() as broker, running_prefork(environment()) as launch:
        return {
            row: [asyncio.run(_measured(row, broker, launch, trouble, scale)) for _ in range(rounds)]
            for row, trouble in troubles.items()
        }


async def _measured(row: str, broker: Broker, launch: Launch, trouble: Trouble, scale: float) -> tuple[float, float]:
    from support.neighbours import neighbours, percentile  # noqa: PLC0415

    jobs = max(2, int(JOBS * scale))
    with tempfile.TemporaryDirectory() as folder:
        async with neighbours(broker, Path(folder), trouble, launch=launch) as both:
            await both.other_jobs(max(1, jobs // 4), at_most=AT_MOST)
            alone = await both.other_jobs(jobs, at_most=AT_MOST)
            await both.trouble(max(2, int(TROUBLED * scale)))
            await asyncio.sleep(_SETTLED * scale)
            beside = await both.other_jobs(jobs, at_most=AT_MOST)
    medians = statistics.median(alone), statistics.median(beside)
    print(
        f"  {row}: median {medians[0]:.2f} s alone, {medians[1]:.2f} s beside the trouble; "
        f"p99 {percentile(alone, 99):.2f} s and {percentile(beside, 99):.2f} s",
        file=sys.stderr,
        flush=True,
    )
    return 1 / medians[1], 1 / medians[0]
