"""One integration never holds up another: real processes, two workers of PROCESS, Apache Kafka.

``make bench PART=neighbour`` measures the same with more jobs.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

import pytest
from support.brokers import Broker
from support.flow_checks import assert_audit_intact
from support.neighbours import FAILING_STORAGE, SILENT_HOST, SLOW_PROCESSOR, Trouble, neighbours, percentile
from support.prefork import Prefork

JOBS = 24
TROUBLED = 40
AT_MOST = 40.0
NOTICEABLE = 1.0
"""Seconds. Shorter times of a few jobs are mostly noise, so the bounds begin here."""
SETTLED = 4.0
"""Seconds for the troubled jobs to reach all that they can hold."""


@pytest.mark.parametrize(
    "trouble", [SILENT_HOST, SLOW_PROCESSOR, FAILING_STORAGE], ids=["silent host", "slow processor", "failing storage"]
)
async def test_a_neighbour_in_trouble_is_hardly_felt(
    apache_kafka: Broker, tmp_path: Path, prefork: Prefork, trouble: Trouble
) -> None:
    """Jobs of another integration take at most three times as long in the median, five times in the 99th percent."""
    async with neighbours(apache_kafka, tmp_path, trouble, launch=prefork) as both:
        await both.other_jobs(JOBS // 2, at_most=AT_MOST)
        alone = await both.other_jobs(JOBS, at_most=AT_MOST)
        await both.trouble(TROUBLED)
        await asyncio.sleep(SETTLED)
        beside = await both.other_jobs(JOBS, at_most=AT_MOST)
        said = f"alone {alone}, beside the trouble {beside}"
        assert statistics.median(beside) <= 3 * max(NOTICEABLE, statistics.median(alone)), said
        assert percentile(beside, 99) <= 5 * max(NOTICEABLE, percentile(alone, 99)), said
        await assert_audit_intact(both.flow)
