"""PROCESS against polars' streaming sink: copy every column, check length, digits and Luhn, add status and message.

Ours is the stage's own code: chunks, engine with ``validate``, parts and manifests in a folder with fsync. Its download
is a local file in 1 MiB pieces, as polars reads one: no HTTP in either. Each run is a process of its own, whose peak
memory the operating system reports.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

RECORDS = 2_000_000


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return rows of (ours, peer): records per second, and records per second and MB of peak memory."""
    speed: list[tuple[float, float]] = []
    thrift: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cards.csv"
        records = int(RECORDS * scale)
        _write(path, records)
        for _ in range(rounds):
            ours, peer = (_run(who, path, Path(folder), records) for who in ("ours", "polars"))
            speed.append((records / ours["seconds"], records / peer["seconds"]))
            # larger is better in every row, so memory counts as its inverse
            thrift.append((1000 / ours["peak_mb"], 1000 / peer["peak_mb"]))
    return {"process: records/s, peer polars sink": speed, "process: 1000 / peak MB, peer polars sink": thrift}


def _write(path: Path, records: int) -> None:
    with path.open("wb") as file:
        file.write(b"card_number,expiry,amount,location_id,note\n")
        for begin in range(0, records, 10_000):
            file.writelines(
                b"%016d,01/30,%d.00,46691,note %d\n" % (9_999_990_000_000_000 + number, number % 500, number)
                for number in range(begin, begin + 10_000)
            )


def _run(who: str, path: Path, folder: Path, records: int) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-m", f"benchmarks.process_{who}", str(path), str(folder / f"out-{who}"), str(records)],
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def report(seconds: float) -> None:
    """Print what a run reached, for :func:`measure`; called at the end of the run's process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))
