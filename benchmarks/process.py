"""PROCESS compared with query engines and a plain loop: copies columns, checks digits and Luhn, adds a status.

Ours is the stage's own code: chunks, engine with ``validate``, encrypted parts and manifests in a folder with fsync.
The peers read the same file, write one result, and keep nothing safe. Ours reads the file in 1 MiB pieces: there is no
HTTP in any of them. Each run is a process of its own, whose peak memory the operating system reports. The row-wise rows
run one asynchronous function per card, in the engine and in a loop over the stdlib's ``csv``, in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

RECORDS: Final = 2_000_000
ROWWISE_RECORDS: Final = 200_000
_GROWTH: Final = 100

_COLUMNAR: Final = "process, columnar, 2,000,000 rows: rows/s / "
_PEERS: Final = {"polars": "polars' streaming sink", "duckdb": "DuckDB", "pyarrow": "pyarrow"}
_CPU: Final = "process, columnar: rows per CPU-second / polars'"
_MEMORY: Final = "process, columnar: peak memory / polars'"
_ROWWISE: Final = "process, row-wise async processor: rows/s / csv loop"
_COST: Final = "cost growth, CPU per row at 100 x rows"

FLOORS: Final = {_COLUMNAR + _PEERS["polars"]: 0.5, _CPU: 0.7, _ROWWISE: 0.95}
CEILINGS: Final = {_MEMORY: 0.75, _COST: 1.25}
TARGETS: Final = {
    **{_COLUMNAR + peer: 1.0 for peer in _PEERS.values()},
    _CPU: 1.0,
    _MEMORY: 0.6,
    _ROWWISE: 1.5,
    _COST: 1.1,
}
NEEDS: Final = {_COLUMNAR + _PEERS["duckdb"]: "duckdb"}


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return rows of (ours, peer): rows per second, per CPU-second, MB of peak memory, CPU-seconds per row."""
    from benchmarks.rows import installed  # noqa: PLC0415 - the runs import this module, and must stay small

    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    records, rowwise = int(RECORDS * scale), int(ROWWISE_RECORDS * scale)
    peers = [who for who in _PEERS if who != "duckdb" or installed("duckdb")]
    with tempfile.TemporaryDirectory() as folder:
        runs = _Runs(Path(folder))
        for _ in range(rounds):
            ours = runs.run("ours", records)
            for who in peers:
                peer = runs.run(who, records)
                pairs[_COLUMNAR + _PEERS[who]].append((records / ours["seconds"], records / peer["seconds"]))
                if who == "polars":
                    pairs[_CPU].append((records / ours["cpu"], records / peer["cpu"]))
                    pairs[_MEMORY].append((ours["peak_mb"], peer["peak_mb"]))
            few = max(records // _GROWTH, 1)
            pairs[_COST].append((ours["cpu"] / records, runs.run("ours", few)["cpu"] / few))
            engine, loop = (runs.run("rowwise", rowwise, form) for form in ("engine", "loop"))
            pairs[_ROWWISE].append((rowwise / engine["seconds"], rowwise / loop["seconds"]))
    return dict(pairs)


class _Runs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, who: str, records: int, *options: str) -> dict[str, float]:
        """Return seconds, CPU seconds and peak memory of a process that handles this many records."""
        path = self._folder / f"cards-{records}.csv"
        if not path.exists():
            _write(path, records)
        command = [sys.executable, "-m", f"benchmarks.process_{who}", str(path), str(self._folder / f"out-{who}")]
        done = subprocess.run([*command, str(records), *options], check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
        result: dict[str, float] = json.loads(done.stdout)
        return result


def _write(path: Path, records: int) -> None:
    with path.open("wb") as file:
        file.write(b"card_number,expiry,amount,location_id,note\n")
        for begin in range(0, records, 10_000):
            file.writelines(
                b"%016d,01/30,%d.00,46691,note %d\n" % (9_999_990_000_000_000 + number, number % 500, number)
                for number in range(begin, min(begin + 10_000, records))
            )


def report(seconds: float, cpu: float) -> None:
    """Print what a run took, for :func:`measure`; called at the end of the run's process."""
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak_mb("self")}))


def peak_mb(pid: int | str) -> float:
    """Return the peak of a process's resident memory, in MiB.

    ``getrusage`` would not do: its peak also covers the parent's memory from before the process's program was loaded.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
