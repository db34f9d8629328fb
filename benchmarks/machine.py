"""Describes the machine, and measures how quiet it was while a suite ran."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from support.brokers import VERSION as KAFKA

OTHERS_AT_MOST: Final = 0.1
"""Cores that other processes may use, on average, on a machine that counts as quiet."""
STEAL_AT_MOST: Final = 0.02
"""Fraction of CPU time that the host may give to other machines on a machine that counts as quiet."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


def described() -> dict[str, str | int | float]:
    """Return hardware and software versions of the machine, without host name and paths."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "java": _java(),
        "kafka": KAFKA,
    }


def _cpu() -> str:
    models: list[str] = re.findall(
        r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), flags=re.MULTILINE
    )
    return models[0] if models else platform.machine()


def _java() -> str:
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return "none"
    found = re.search(r'"(.+?)"', done.stderr)
    return found[1] if found else "unknown"


@dataclass(frozen=True, slots=True)
class Quiet:
    """Other activity on the machine while a suite ran.

    Attributes:
        others: Cores that processes outside the run used, on average.
        steal: Fraction of CPU time that the host gave to other machines.
        load: Load average over one minute at the end; it includes the run's own processes.
        cpu_seconds: CPU time of the run's own processes.
    """

    others: float
    steal: float
    load: float
    cpu_seconds: float

    @property
    def note(self) -> str:
        """The disturbances of the run; empty for a quiet machine."""
        if self.others <= OTHERS_AT_MOST and self.steal <= STEAL_AT_MOST:
            return ""
        return (
            f"the machine was not quiet: other processes used {self.others:.2f} cores, "
            f"the host took {self.steal:.1%} of the CPU time, load average {self.load:.1f}"
        )


class QuietWatch:
    """Measures from its creation on. All processes of the run must have ended before :meth:`result`."""

    def __init__(self) -> None:
        self._before = _cpu_seconds()

    def result(self) -> Quiet:
        """Return the activity since the creation."""
        wall, busy, steal, own = (after - before for after, before in zip(_cpu_seconds(), self._before, strict=True))
        wall = wall or 1 / _TICK
        cores = os.cpu_count() or 1
        return Quiet(
            others=round(max(0.0, busy - own) / wall * cores, 3),
            steal=round(steal / wall, 4),
            load=round(os.getloadavg()[0], 2),
            cpu_seconds=round(own, 1),
        )


def _cpu_seconds() -> tuple[float, float, float, float]:
    """Return seconds of all cores: total, busy, stolen, and those of this run's processes."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    with Path("/proc/stat").open() as file:
        spent = dict(zip(names, (int(field) / _TICK for field in file.readline().split()[1:9]), strict=True))
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy = sum(spent[name] for name in ("user", "nice", "system", "irq", "softirq"))
    return sum(spent.values()), busy, spent["steal"], sum(use.ru_utime + use.ru_stime for use in own)
