"""The demo, as ``make demo`` starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def test_the_demo_verifies_both_acts_twice_in_the_same_folder(tmp_path: Path) -> None:
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
        check_events(document["events"])
        assert "validate 100,000 cards: 100%" in run.stdout
        assert "deliver 10,000 events of 32 kinds: 100%" in run.stdout
        assert run.stderr == ""
        assert len(list((tmp_path / "demo" / "store" / "jobs").glob("*/*"))) == 3


def check_events(events: dict[str, Any]) -> None:
    """The books balance when this test reads them itself: per category and in all."""
    assert events["findings"] == []
    assert len(events["rows"]) == 19  # 18 categories, and paths that nobody knows
    for row in (*events["rows"], events["total"]):
        assert row["sent"] == row["accepted"] + row["refused"], row
        assert row["accepted"] == row["delivered"] + row["repeats"] + row["quarantined"], row
    total, sending = events["total"], events["sending"]
    assert total["sent"] == 10_000 + sending["repeats"]
    assert total["repeats"] == sending["repeats"] > 400
    assert total["quarantined"] == sending["quarantined"] == 8
    assert total["delivered"] == 10_000 - sum(sending["broken"].values()) == 9972
    assert total["refused"] == sending["refused"] + sending["given_up"] == 20
