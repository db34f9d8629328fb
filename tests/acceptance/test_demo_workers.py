"""The demo with several workers, on Apache Kafka: it shares its job and verifies it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.brokers import Broker
from support.prefork import Prefork

from tools.demo_workers import Work, run


async def test_two_workers_share_the_job(apache_kafka: Broker, tmp_path: Path, prefork: Prefork) -> None:
    shown: list[Sequence[Work]] = []
    result = await run(
        apache_kafka, tmp_path, workers=2, cards=2000, chunks=20, store=None, watch=shown.append, launch=prefork
    )
    assert result.findings == []
    assert sum(one.chunks for one in result.workers) == 20
    assert all(one.chunks for one in result.workers)
    assert shown[-1] == result.workers
