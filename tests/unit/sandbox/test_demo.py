"""The demo convicts a pipeline that does anything else than it must."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from rich.console import Console
from support.sandbox_world import Prepared, prepare
from support.screen import Screen

from pipeline.errors import FatalError
from pipeline.sandbox import CardFile, Sandbox
from pipeline.sandbox.demo import PLAN, DemoFailed, DemoJob, DemoResult, EventsOutcome, Outcome
from pipeline.sandbox.demo import __main__ as program
from pipeline.sandbox.demo.books import Row
from pipeline.sandbox.demo.checking import check_job, counts
from pipeline.sandbox.demo.events import WatchEvents
from pipeline.sandbox.demo.running import Watch
from pipeline.sandbox.demo.showing import new_console, show_events, show_jobs, watching

LOAD, VALIDATE, REFUSE = PLAN
SMALL = CardFile(records=30, bad_share=0.2, cvv=True, seed=20)
GOOD = CardFile(records=30, cvv=True, seed=20)


class Pipeline:
    """Does a job as it must be done, or with one thing changed."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession, plan: DemoJob) -> None:
        self.sandbox, self.http, self.plan = (
            sandbox,
            http,
            replace(plan, cards=GOOD if plan.processor == "http" else SMALL),
        )
        self.request_id = "r-1"
        self.result: str | None = None
        self.steps: Sequence[str] = plan.steps
        self.body: dict[str, Any] = {}

    async def job(self) -> Prepared:
        job = await prepare(self.sandbox, cards=self.plan.cards, content=self.plan.content)
        self.ok, self.failed = counts(self.plan, job.job)
        self.body = {"success": True, "records_processed": 30, "records_failed": self.failed, "error_message": None}
        if not self.plan.success:
            message = "The file is not a CSV file: it looks like an HTML page."
            self.body = {"success": False, "records_processed": 0, "records_failed": 0, "error_message": message}
            return job
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*(name for name in SMALL.columns if name != "cvv"), "status", "message"])
        assert job.job.ledger is not None
        for card in job.job.ledger.cards():
            fields = [*card.fields[:5], card.fields[6]] if len(card.fields) == 7 else [""] * 6
            status = self.plan.rules.expected(card)
            writer.writerow([*fields, status, "" if status == "ok" else "no"])
        self.result = out.getvalue()
        return job

    async def load(self, job: Prepared) -> None:
        """Load every card once."""
        assert job.job.ledger is not None
        token = self.sandbox.settings.card_api.token.get_secret_value()
        for card in job.job.ledger.cards():
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(card.record)}
            body = {"card_number": card.number}
            async with self.http.post(self.sandbox.cards_url, json=body, headers=headers) as response:
                assert response.status in {201, 422}

    async def call_back(self, job: Prepared) -> None:
        headers = {"Authorization": f"Bearer {self.sandbox.token()}", "X-Request-Id": self.request_id}
        async with self.http.post(job.callback_url, json=self.body, headers=headers) as response:
            await response.read()

    async def run(self, job: Prepared) -> list[str]:
        async with self.http.get(job.input_url) as response:
            await response.read()
        if self.plan.processor == "http":
            await self.load(job)
        if self.result is not None:
            async with self.http.put(job.result_url, data=self.result.encode()) as response:
                assert response.status == 200
        await self.call_back(job)
        return self.check(job)

    def check(self, job: Prepared) -> list[str]:
        return check_job(self.sandbox, self.plan, job.job, expected=(self.ok, self.failed), steps=self.steps)


@pytest.mark.parametrize("plan", PLAN)
async def test_a_right_pipeline_is_not_accused(sandbox: Sandbox, http: aiohttp.ClientSession, plan: DemoJob) -> None:
    """All three jobs, done as they must be."""
    pipeline = Pipeline(sandbox, http, plan)
    job = await pipeline.job()
    assert await pipeline.run(job) == []


async def test_nothing_at_all_is_noticed(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """No callback, no result, no step, no download."""
    pipeline = Pipeline(sandbox, http, VALIDATE)
    job = await pipeline.job()
    pipeline.steps = ()
    findings = pipeline.check(job)
    assert "ECS accepted 0 callbacks instead of 1 (none came)" in findings[0]
    assert "no result was uploaded" in findings[1]
    assert "the audit log lacks webhook.accepted, job.announced" in findings[2]
    assert "asked for 0 times" in findings[3]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"records_failed": 0}, "the callback says"),
        ({"records_processed": 29}, "the callback says"),
        ({"success": False, "error_message": "no"}, "the callback says"),
        ({"job": "mine"}, "fields that ECS does not know: job"),
    ],
)
async def test_a_wrong_callback_is_convicted(
    sandbox: Sandbox, http: aiohttp.ClientSession, change: dict[str, object], found: str
) -> None:
    """Wrong counts, a wrong outcome, unknown fields."""
    pipeline = Pipeline(sandbox, http, VALIDATE)
    job = await pipeline.job()
    pipeline.body |= change
    assert any(found in finding for finding in await pipeline.run(job))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"success": True, "error_message": None}, "accepted 0 callbacks"),
        ({"records_processed": 3}, "not a failure without a processed record"),
        ({"error_message": "something went wrong"}, "does not name HTML"),
    ],
)
async def test_a_failure_with_a_wrong_callback_is_found(
    sandbox: Sandbox, http: aiohttp.ClientSession, change: dict[str, object], found: str
) -> None:
    """Success, progress or another reason where none was."""
    pipeline = Pipeline(sandbox, http, REFUSE)
    job = await pipeline.job()
    pipeline.body |= change
    assert any(found in finding for finding in await pipeline.run(job))


async def test_a_result_for_a_failed_job_is_convicted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """ECS must have no result of a failed job."""
    pipeline = Pipeline(sandbox, http, REFUSE)
    job = await pipeline.job()
    pipeline.result = "a,b\n"
    assert any("a result of 4 bytes was uploaded" in finding for finding in await pipeline.run(job))


async def test_a_changed_result_is_convicted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The finding names record and column."""
    pipeline = Pipeline(sandbox, http, VALIDATE)
    job = await pipeline.job()
    assert pipeline.result is not None
    pipeline.result = pipeline.result.replace("card 1,", "card one,")
    assert any("record 1: column note" in finding for finding in await pipeline.run(job))


async def test_a_card_that_is_loaded_twice_is_convicted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The card API counts repeats."""
    pipeline = Pipeline(sandbox, http, LOAD)
    job = await pipeline.job()
    await pipeline.load(job)
    assert any("the card API counts 30 repeats, not 0" in finding for finding in await pipeline.run(job))


async def test_callbacks_that_differ_are_convicted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """One body and one X-Request-Id per job, however often."""
    pipeline = Pipeline(sandbox, http, VALIDATE)
    job = await pipeline.job()
    await pipeline.run(job)
    pipeline.request_id = "r-2"
    await pipeline.call_back(job)
    assert any("differ in body or X-Request-Id" in finding for finding in pipeline.check(job))


async def test_a_step_too_many_and_a_rewritten_url_are_convicted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The audit log has each step once; URLs are used as they were given."""
    pipeline = Pipeline(sandbox, http, VALIDATE)
    job = await pipeline.job()
    pipeline.steps = (*VALIDATE.steps, "job.started")
    job.input_url = type(job.input_url)(str(job.input_url).replace("%2F", "/"), encoded=True)
    findings = await pipeline.run(job)
    assert any("too many job.started" in finding for finding in findings)
    assert any("input.csv was sent with another encoding" in finding for finding in findings)


OUTCOME = Outcome(
    job="validate",
    integration="checking",
    job_guid="cffde776-1d2a-4614-8023-a5148e411462",
    cards=1000,
    ok=990,
    failed=10,
    result_bytes=12_345,
    seconds=1.25,
    callback='{"success": true}',
    answer="200 RESULT_RECEIVED",
    findings=(),
)

ROW = Row("managed-cards", sent=2572, accepted=2566, refused=6, quarantined=4, repeats=133, delivered=2429)
EVENTS_OUTCOME = EventsOutcome(rows=(ROW,), total=replace(ROW, category="total"), sending={}, seconds=8.4, findings=())


class TestProgram:
    """Exit status, demo.json and what is printed."""

    def run(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        outcome: Outcome | BaseException,
        *,
        general: str = "",
        events: EventsOutcome = EVENTS_OUTCOME,
    ) -> tuple[int, str, dict[str, Any]]:
        async def demo(folder: Path, watch: Watch, watch_events: WatchEvents) -> DemoResult:
            assert list(folder.iterdir()) == [folder / "demo.log"]  # noqa: ASYNC240 - a handful of files
            watch([])
            watch_events(0.5)
            if isinstance(outcome, BaseException):
                raise outcome
            return DemoResult((outcome,), events, (general,) if general else ())

        (tmp_path / "demo").mkdir()
        (tmp_path / "demo" / "old").touch()
        monkeypatch.setattr(program, "run_demo", demo)
        found = CliRunner().invoke(program.main, ["--out", str(tmp_path)])
        return found.exit_code, found.output, json.loads((tmp_path / "demo.json").read_text())

    def test_exit_0_only_when_verified(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a table, and where to look around."""
        code, output, document = self.run(tmp_path, monkeypatch, OUTCOME)
        assert code == 0
        assert re.search(
            r"validate .* 1,000 .* 990 .* 10 .* 12,345 .* 1\.2 .* completed -> 200 RESULT_RECEIVED", output
        )
        assert "job show checking/cffde776-1d2a-4614-8023-a5148e411462" in output
        assert document["verified"] is True
        assert document["jobs"][0]["result_bytes"] == 12_345
        assert re.search(r"managed-cards .* 2,572 .* 2,566 .* 6 .* 4 .* 133 .* 2,429", output)
        assert document["events"]["total"]["delivered"] == 2429

    def test_a_finding_is_exit_1_and_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a job, or of the audit log as a whole."""
        wrong = replace(OUTCOME, findings=("record 7: column note was changed [x]",))
        code, output, document = self.run(tmp_path, monkeypatch, wrong, general="audit log broken")
        assert code == 1
        assert "WRONG: record 7: column note was changed [x]" in output
        assert document["findings"] == ["audit log broken", "record 7: column note was changed [x]"]
        assert document["verified"] is False

    def test_a_finding_of_the_second_act_is_exit_1_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both acts must be verified."""
        wrong = replace(EVENTS_OUTCOME, findings=("event 3 was accepted, and handled 0 times",))
        code, output, document = self.run(tmp_path, monkeypatch, OUTCOME, events=wrong)
        assert code == 1
        assert "WRONG: event 3 was accepted, and handled 0 times" in output
        assert (document["verified"], document["findings"]) == (False, list(wrong.findings))

    @pytest.mark.parametrize(
        "error",
        [
            DemoFailed("not ready"),
            ExceptionGroup("many", [ExceptionGroup("inner", [FatalError("broker", "not ready")])]),
        ],
    )
    def test_a_demo_that_does_not_run_is_exit_1(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        """The output gives the reason."""
        code, output, document = self.run(tmp_path, monkeypatch, error)
        assert code == 1
        assert "the demo ended early:" in output
        assert "not ready" in document["findings"][0]
        assert (document["jobs"], document["events"]) == ([], None)


def log_a_line() -> None:
    """Write to stderr as Python's loggers and libraries in C do."""
    sys.stderr.write('{"event": "a log line"}\n')
    os.write(2, b"a line of a library in C\n")


CATEGORIES = ("correspondent-bank-transfers", "outgoing-wire-transfers", "(unknown path)")
LONG = replace(
    OUTCOME,
    job="refuse a file that is no CSV",
    callback='{"success": false, "error_message": "The file is not a CSV file: it looks like an HTML page."}',
)


@pytest.mark.parametrize("width", [80, 150])
@pytest.mark.parametrize("findings", [(), ("event 3 was accepted, and handled 0 times",)])
def test_a_terminal_shows_bars_tables_and_the_end_and_no_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, findings: tuple[str, ...]
) -> None:
    """What is logged goes to demo.log, which the end names; no cell is cut, no row is broken."""
    out = Screen(width)
    rows = tuple(
        Row(name, sent=10_504, accepted=10_484, refused=20, quarantined=8, repeats=504, delivered=9972)
        for name in CATEGORIES
    )
    events = EventsOutcome(rows, replace(rows[0], category="total"), sending={}, seconds=8.4, findings=findings)

    async def demo(folder: Path, watch: Watch, watch_events: WatchEvents) -> DemoResult:
        del folder
        watch([(plan, None, 0.5) for plan in PLAN])
        log_a_line()
        watch_events(0.5)
        log_a_line()
        watch([(plan, None, 1.0) for plan in PLAN])
        watch_events(1.0)
        return DemoResult((OUTCOME, LONG), events)

    console = Console(file=out, width=width, force_terminal=True, force_interactive=True, highlight=False)
    monkeypatch.setattr(program, "run_demo", demo)
    monkeypatch.setattr(program, "new_console", lambda: console)
    with pytest.raises(SystemExit):
        program.main(["--out", str(tmp_path)], standalone_mode=False)
    lines = out.lines()
    log = tmp_path / "demo" / "demo.log"
    assert log.read_text() == '{"event": "a log line"}\na line of a library in C\n' * 2
    assert not any("log line" in line or "library in C" in line or "…" in line for line in lines)
    assert all(re.search(r" 100 % 0:00:0\d$", line) for line in lines[:4])
    assert [line for line in lines if line.startswith(CATEGORIES)] == [
        line for line in lines if re.search(r" 10,504 +10,484 +20 +8 +504 +9,972$", line) and "total" not in line
    ]
    assert sum("validate  " in line and "1,000" in line for line in lines) == 1
    assert ("WRONG: event 3 was accepted, and handled 0 times" in lines) == bool(findings)
    assert "".join(lines).count(f"Logs: {log}") == 1


def test_the_table_shows_what_did_not_happen() -> None:
    """No result, no callback, a failure's message."""
    console = Console(width=160, record=True, file=io.StringIO())
    failed = replace(OUTCOME, callback='{"success": false, "error_message": "an HTML page"}', result_bytes=None)
    show_jobs(console, [failed, replace(OUTCOME, callback=None, seconds=None, answer="no callback came")])
    text = console.export_text()
    assert "failed: an HTML page -> 200" in text
    assert "no callback came" in text


def test_without_a_terminal_each_quarter_is_a_line() -> None:
    """Never the same line twice."""
    console = Console(file=io.StringIO(), width=100, record=True)
    job: Any = object()
    with watching(console) as (watch, watch_events):
        for done in (0.0, 0.1, 0.3, 0.31, 0.99, 1.0):
            watch([(VALIDATE, job, done), (LOAD, None, 0.0)])
        for done in (0.0, 0.9, 0.95):
            watch_events(done)
    lines = console.export_text().splitlines()
    jobs = [f"validate 100,000 cards: {share}" for share in ("0%", "25%", "75%", "100%")]
    assert lines == [*jobs, *(f"deliver 10,000 events of 32 kinds: {share}" for share in ("0%", "75%"))]


def test_on_a_terminal_there_is_a_bar_per_job_and_one_for_all_events() -> None:
    """All titles, and the percentage."""
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, force_interactive=True)
    with watching(console) as (watch, watch_events):
        watch([(plan, None, 1.0) for plan in PLAN])
        watch_events(1.0)
    titles = [*(plan.title for plan in PLAN), "deliver 10,000 events of 32 kinds"]
    assert all(title in out.getvalue() for title in titles)
    assert "100 %" in out.getvalue()


def test_the_events_have_a_row_per_category_and_a_sum() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    show_events(console, EVENTS_OUTCOME)
    text = console.export_text()
    assert re.search(r"managed-cards .* 2,572 .* 2,566 .* 6 .* 4 .* 133 .* 2,429", text)
    assert re.search(r"total .* 2,572 ", text)


def test_the_console_is_wide_enough_without_a_terminal() -> None:
    """So that no row of the table is broken into many."""
    assert new_console().width >= 80
