"""``python -m pipeline.sandbox.demo --out build``: exit 0 only when everything was verified."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path

import click
import uvloop
from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.sandbox.demo.running import DemoFailed, Outcome, run_demo
from pipeline.sandbox.demo.showing import new_console, show_table, watching


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for demo.json and demo/, which is made anew.",
)
def main(out: Path) -> None:
    """Run three real card batch jobs on an embedded broker and a sandbox, and verify all that came of them."""
    console, folder = new_console(), out / "demo"
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "pipeline.log"
    outcomes: list[Outcome] = []
    findings: list[str] = []
    with log.open("w", encoding="utf-8") as stderr, redirect_stderr(stderr), watching(console) as watch:
        try:
            outcomes, findings = uvloop.run(run_demo(folder, watch))
        except* (DemoFailed, PipelineError, OSError) as errors:
            findings = [f"the demo did not come to its end: {error}" for error in _leaves(errors)]
    findings += [finding for one in outcomes for finding in one.findings]
    seconds = time.monotonic() - began
    _write(out / "demo.json", outcomes, findings, seconds)
    show_table(console, outcomes)
    if findings:
        _accuse(console, findings, log)
    else:
        _conclude(console, outcomes[0], seconds, folder)
    sys.exit(1 if findings else 0)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _write(file: Path, outcomes: Sequence[Outcome], findings: Sequence[str], seconds: float) -> None:
    document = {
        "verified": not findings,
        "seconds": round(seconds, 2),
        "jobs": [asdict(one) for one in outcomes],
        "findings": list(findings),
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _accuse(console: Console, findings: Sequence[str], log: Path) -> None:
    for finding in findings:
        console.print(f"NOT AS IT MUST BE: {finding}", soft_wrap=True, markup=False)
    console.print(f"The log is in {log}", soft_wrap=True)


def _conclude(console: Console, first: Outcome, seconds: float, folder: Path) -> None:
    console.print(f"Verified in {seconds:.1f} s: result files, ECS's record of callbacks, audit log.")
    command = Path(sys.executable).with_name("pipeline")  # an environment that nobody activated
    job = f"{first.integration}/{first.job_guid}"
    console.print(f"Look around: {command} --config {folder}/pipeline.toml job show {job}", soft_wrap=True)


if __name__ == "__main__":
    main()
