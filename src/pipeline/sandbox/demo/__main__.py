"""``python -m pipeline.sandbox.demo --out build``. It exits with 0 only if everything was verified."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import uvloop

from pipeline.errors import PipelineError
from pipeline.sandbox.demo.running import DemoFailed, DemoResult, run_demo
from pipeline.sandbox.demo.showing import (
    logs_in,
    new_console,
    show_end,
    show_events,
    show_findings,
    show_jobs,
    watching,
)


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for demo.json and demo/, which is replaced.",
)
def main(out: Path) -> None:
    """Run three card batch jobs and ten thousand events on an embedded broker and a sandbox, and verify everything."""
    console, folder = new_console(), out / "demo"
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "demo.log"
    result = DemoResult()
    with logs_in(log), watching(console) as (watch, watch_events):
        try:
            result = uvloop.run(run_demo(folder, watch, watch_events))
        except* (DemoFailed, PipelineError, OSError) as errors:
            result = DemoResult(findings=tuple(f"the demo ended early: {one}" for one in _leaves(errors)))
    findings = result.all_findings()
    seconds = time.monotonic() - began
    _write(out / "demo.json", result, seconds)
    show_jobs(console, result.jobs)
    if result.events:
        show_events(console, result.events)
    if findings:
        show_findings(console, findings, log)
    else:
        show_end(console, result.jobs[0], seconds, folder, log)
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


if __name__ == "__main__":
    main()
