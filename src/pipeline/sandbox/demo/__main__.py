"""``python -m pipeline.sandbox.demo --out build``: exit 0 only when everything was verified."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path

import click
import uvloop
from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.sandbox.demo.running import DemoFailed, DemoResult, Outcome, run_demo
from pipeline.sandbox.demo.showing import new_console, show_events, show_table, watching


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for demo.json and demo/, which is made anew.",
)
def main(out: Path) -> None:
    """Run three card batch jobs and ten thousand events on an embedded broker and a sandbox, and verify everything."""
    console, folder = new_console(), out / "demo"
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "pipeline.log"
    result = DemoResult()
    with log.open("w", encoding="utf-8") as stderr, redirect_stderr(stderr), watching(console) as (watch, watch_events):
        try:
            result = uvloop.run(run_demo(folder, watch, watch_events))
        except* (DemoFailed, PipelineError, OSError) as errors:
            result = DemoResult(findings=tuple(f"the demo did not come to its end: {one}" for one in _leaves(errors)))
    findings = result.all_findings()
    seconds = time.monotonic() - began
    _write(out / "demo.json", result, seconds)
    show_table(console, result.jobs)
    if result.events:
        show_events(console, result.events)
    if findings:
        _accuse(console, findings, log)
    else:
        _conclude(console, result.jobs[0], seconds, folder)
    sys.exit(1 if findings else 0)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _write(file: Path, result: DemoResult, seconds: float) -> None:
    document = {
        "verified": not result.all_findings(),
        "seconds": round(seconds, 2),
        "jobs": [asdict(one) for one in result.jobs],
        "events": asdict(result.events) if result.events else None,
        "findings": result.all_findings(),
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _accuse(console: Console, findings: list[str], log: Path) -> None:
    for finding in findings:
        console.print(f"NOT AS IT MUST BE: {finding}", soft_wrap=True, markup=False)
    console.print(f"The log is in {log}", soft_wrap=True)


def _conclude(console: Console, first: Outcome, seconds: float, folder: Path) -> None:
    console.print(f"Verified in {seconds:.1f} s: result files, ECS's record of callbacks, audit log; answers, topics.")
    command = Path(sys.executable).with_name("pipeline")  # an environment that nobody activated
    job = f"{first.integration}/{first.job_guid}"
    console.print(f"Look around: {command} --config {folder}/pipeline.toml job show {job}", soft_wrap=True)


if __name__ == "__main__":
    main()
