"""The demo, as ``make demo`` starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_demo_verifies_three_jobs_twice_in_the_same_folder(tmp_path: Path) -> None:
    """Exit 0, plain lines without a terminal, demo.json, and the job store kept; a second run starts afresh."""
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-m", "pipeline.sandbox.demo", "--out", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        document = json.loads((tmp_path / "demo.json").read_text("utf-8"))
        assert document["verified"] is True
        assert [(one["cards"], one["ok"] > 0) for one in document["jobs"]] == [
            (200, True),
            (100_000, True),
            (0, False),
        ]
        assert "validate 100,000 cards: 100%" in run.stdout
        assert run.stderr == ""
        assert len(list((tmp_path / "demo" / "store" / "jobs").glob("*/*"))) == 3
