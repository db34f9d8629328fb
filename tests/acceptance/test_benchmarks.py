"""The benchmarks run: one round of a fiftieth of the work. No number is looked at: machines differ and are noisy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

from support.brokers import skip_without_java
from support.paths import ROOT

from benchmarks.__main__ import SMOKE_OUT, SUITES

TESTED_ELSEWHERE: Final = {"neighbour", "fanout"}
"""A minute of processes each; test_isolation.py and test_fanout.py of tests/acceptance run the same code."""


def test_the_suites_of_the_benchmarks_yield_their_rows() -> None:
    """A row with a bound or a target that is not measured breaks the run."""
    skip_without_java()
    suites = [suite for suite in SUITES if suite not in TESTED_ELSEWHERE]
    command = [sys.executable, "-m", "benchmarks", "--smoke", *suites]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads((ROOT / SMOKE_OUT).read_text("utf-8"))["rows"]
    assert {row["suite"] for row in rows} == set(suites)
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)
