"""What a person sees of ``make demo WORKERS=3``: a bar for the job, one per worker, a table, the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.screen import Screen

from pipeline.sandbox.demo.showing import new_console
from tools.demo_workers import Result, Work, show_result, watching

BAR = re.compile(r"(load 100,000 cards|  worker [123]) +━+[╸╺]?━* +(\d+) % +[\d,]+ cards +[\d,]+/s")
DONE = [Work(100, 50_000), Work(60, 30_000), Work(40, 20_000)]


def terminal(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> Screen:
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(screen.width))
    monkeypatch.setenv("TERM", "xterm-256color")
    return screen


@pytest.mark.parametrize("width", [80, 150])
def test_a_terminal_shows_a_bar_for_the_job_and_one_per_worker(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = terminal(monkeypatch, Screen(width))
    console = new_console()
    with watching(console, 100_000, 3) as watch:
        watch([Work(), Work(), Work()])
        watch([Work(40, 20_000), Work(20, 10_000), Work()])
        found = [BAR.fullmatch(line) for line in screen.lines()]
        assert [one and one[2] for one in found] == ["30", "20", "10", "0"], screen.lines()
        watch(DONE)
    show_result(console, Result(100_000, 20.0, DONE), store="s3", logs=Path("build/demo-workers"))
    lines = screen.lines()
    assert [one and one[2] for one in map(BAR.fullmatch, lines[:4])] == ["100", "50", "30", "20"]
    assert [line.split() for line in lines if re.match(r"\d", line)] == [
        ["1", "100", "50,000", "50%"],
        ["2", "60", "30,000", "30%"],
        ["3", "40", "20,000", "20%"],
    ]
    end = " ".join(lines[-3:])
    assert "Verified in 20.0 s (5,000 cards/s, store: s3): result file, callback, each card once." in end
    assert end.endswith("Logs: build/demo-workers")


def test_without_colours_nothing_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Recording(Screen):
        def write(self, text: str) -> int:
            written.append(text)
            return super().write(text)

    screen = terminal(monkeypatch, Recording(80))
    monkeypatch.setenv("NO_COLOR", "1")
    with watching(new_console(), 100_000, 3) as watch:
        watch([Work(), Work(), Work()])
        watch(DONE)
    assert not re.search(r"\x1b\[(3|9)\d|\x1b\[38", "".join(written))
    assert [bool(BAR.fullmatch(line)) for line in screen.lines()] == [True] * 4


def test_without_a_terminal_each_quarter_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(new_console(), 100_000, 3) as watch:
        watch([Work(), Work(), Work()])
        watch([Work(2, 1000), Work(), Work()])
        watch([Work(40, 20_000), Work(20, 10_000), Work()])
        watch(DONE)
    assert capsys.readouterr().out.splitlines() == [
        "load 100,000 cards: 0%, by worker: 0, 0, 0",
        "load 100,000 cards: 25%, by worker: 20,000, 10,000, 0",
        "load 100,000 cards: 100%, by worker: 50,000, 30,000, 20,000",
    ]


def test_what_is_wrong_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(100_000, 20.0, DONE, ["ECS was notified 2 times instead of once"])
    show_result(new_console(), result, store="folder", logs=Path("logs"))
    out = capsys.readouterr().out
    assert "WRONG: ECS was notified 2 times instead of once\n" in out
    assert "Verified" not in out
