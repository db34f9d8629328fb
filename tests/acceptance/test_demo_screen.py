"""The demo on a terminal: what a newcomer sees first."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from support.paths import ROOT
from support.screen import Screen

MOST_SECONDS = 300
BAR = re.compile(r"(load|validate|refuse|deliver) .* +\d+ % (\d:\d\d:\d\d|-:--:--)")
CATEGORIES = 19  # 18, and paths that nobody knows


@pytest.mark.parametrize("width", [80, 150])
def test_a_terminal_shows_only_bars_tables_and_the_closing_hint(tmp_path: Path, width: int) -> None:
    """At every moment; all logs are in demo.log."""
    screen, seen = run_on_a_terminal(tmp_path, width)
    lines = screen.lines()
    assert seen, "no bar was shown before the end"
    assert all(BAR.fullmatch(line) for shown in seen for line in shown)
    assert all(BAR.fullmatch(line) and " 100 % " in line for line in lines[:4])
    assert not any("{" in line or "…" in line for line in lines), lines
    assert sum(bool(re.fullmatch(r"[a-z(][a-z-]+( path\))?( +[\d,]+){6}", line)) for line in lines) == CATEGORIES + 1
    assert sum(bool(re.match(r"(load|validate|refuse) .* +[\d,]+ +[\d,]+ +[\d,]+ ", line)) for line in lines) == 3
    text = "\n".join(lines)
    assert re.search(r"^Verified in [\d.]+ s: .*\.\nLogs: demo/demo\.log\nLook at a job:\n", text, re.MULTILINE)
    assert re.search(r" --config demo/pipeline\.toml \\\n    job show loading/[0-9a-f-]{36}$", text)
    assert '"event": "embedded_broker_used"' in (tmp_path / "demo" / "demo.log").read_text("utf-8")


def run_on_a_terminal(folder: Path, width: int) -> tuple[Screen, list[list[str]]]:
    """Return the screen at the end, and what it showed while there were only bars."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 100, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.sandbox.demo", "--out", "."],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT / "src")},
    )
    os.close(theirs)
    late = threading.Timer(MOST_SECONDS, process.kill)
    late.start()
    screen, seen = Screen(width), list[list[str]]()
    try:
        while data := _read(ours):
            screen.write(data.decode("utf-8", "replace"))
            lines = [line for line in screen.lines() if line]
            if len(lines) <= 4:
                seen.append(lines)
        assert process.wait() == 0, "\n".join(screen.lines())
    finally:
        late.cancel()
        process.kill()
        process.wait()
        os.close(ours)
    return screen, seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # its other end is closed
        return b""
