"""`pipeline sources capture`: what the ingress refuses is shown, kept if wanted, and gone afterwards."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.command_line import Run

from pipeline.cli.exits import UsageRefused
from pipeline.cli.source_capture import CaptureTask, Show, SourceBusy, capture
from pipeline.webhooks.capture import Capture, RefusedRequest, ask, captured_file, read_captured
from pipeline.webhooks.sources import WebhookRequest

SOURCE = "ecs.acme"
REQUEST = RefusedRequest(
    at=datetime(2026, 1, 22, 22, 43, 59, tzinfo=UTC),
    reason="not_verified",
    request=WebhookRequest(
        path="",
        headers=(("content-type", b"application/json"), ("x-webhook-secret", b"the-webhook-secret")),
        body=b'{"planted": "planted-body"}',
        client="192.0.2.7",
    ),
)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def capturing(tmp_path: Path) -> CaptureTask:
    """A minute's capturing that ends with the second request."""
    return CaptureTask(tmp_path / "capture", SOURCE, now() + timedelta(minutes=1), 2, tmp_path / "kept")


@asynccontextmanager
async def refusing(folder: Path, count: int) -> AsyncIterator[None]:
    """An ingress process that refuses so many requests once it has noticed that they are wanted."""

    def begun() -> bool:
        return any(folder.glob("*.captured"))

    async def ingress() -> None:
        process = Capture(folder, clock=now)
        while not begun():
            await asyncio.sleep(0)
            process.poll()
        for number in range(count):
            process.refused(SOURCE, replace(REQUEST, at=now(), reason=str(number)))

    task = asyncio.create_task(ingress())
    yield
    await task


async def test_each_request_is_shown_once_with_its_number(capturing: CaptureTask) -> None:
    shown: list[tuple[int, str]] = []
    async with refusing(capturing.folder, 5):
        count = await capture(capturing, lambda _, number, request: shown.append((number, request.reason)), pause=0)
    assert (count, shown) == (2, [(1, "0"), (2, "1")])


async def test_it_says_from_when_on_requests_are_kept(
    capturing: CaptureTask, capsys: pytest.CaptureFixture[str]
) -> None:
    async with refusing(capturing.folder, 2):
        await capture(capturing, lambda *_: None, pause=0)
    assert capsys.readouterr().err == f"capturing refused requests of ecs.acme until {capturing.until:%H:%M:%S} UTC\n"


async def test_afterwards_only_the_wanted_copy_is_left_and_it_is_its_owners_alone(capturing: CaptureTask) -> None:
    async with refusing(capturing.folder, 2):
        await capture(capturing, lambda *_: None, pause=0)
    assert list(capturing.folder.iterdir()) == []
    assert capturing.output is not None
    assert stat.S_IMODE(capturing.output.stat().st_mode) == 0o600
    assert [refused.request.body for refused in read_captured(capturing.output)] == [REQUEST.request.body] * 2


async def test_without_a_copy_it_lasts_until_its_time_is_over_and_leaves_nothing(capturing: CaptureTask) -> None:
    over = replace(capturing, output=None, until=now())
    assert await capture(over, lambda *_: None, pause=0) == 0
    assert list(capturing.folder.iterdir()) == []


async def test_interrupted_it_leaves_nothing(capturing: CaptureTask) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    task = asyncio.create_task(_interrupted(capturing, interrupt))
    async with refusing(capturing.folder, 1):
        assert await task
    assert list(capturing.folder.iterdir()) == []


async def _interrupted(capturing: CaptureTask, show: Show) -> bool:
    try:
        await capture(capturing, show, pause=0)
    except KeyboardInterrupt:
        return True
    return False


async def test_a_source_is_captured_by_one_command_at_a_time(capturing: CaptureTask) -> None:
    ask(capturing.folder, SOURCE, until=capturing.until, limit=1)
    with pytest.raises(SourceBusy):
        await capture(capturing, lambda *_: None, pause=0)


async def test_a_folder_that_cannot_be_used_is_named(capturing: CaptureTask, tmp_path: Path) -> None:
    with pytest.raises(UsageRefused, match="missing"):
        await capture(replace(capturing, folder=tmp_path / "missing" / "capture"), lambda *_: None, pause=0)


async def test_a_missing_ingress_causes_a_warning(capturing: CaptureTask, capsys: pytest.CaptureFixture[str]) -> None:
    async def late() -> None:
        while "no ingress process has reacted" not in (err := capsys.readouterr().err):
            assert err == ""
            await asyncio.sleep(0)

    task = asyncio.create_task(capture(capturing, lambda *_: None, pause=0))
    await late()
    async with refusing(capturing.folder, 2):
        assert await task == 2


# the command


@pytest.fixture
def captured(home: Path) -> Path:
    """A file with one request, and settings under which it could have been captured."""
    with (home / "pipeline.toml").open("a") as file:
        file.write('\n[ingress]\ncapture_dir = "capture"\n')
    wanted = ask(home / "capture", SOURCE, until=now() + timedelta(minutes=1), limit=5)
    process = Capture(home / "capture", clock=now)
    process.poll()
    process.refused(SOURCE, REQUEST)
    return captured_file(home / "capture", wanted)


def test_a_captured_request_is_tried_as_it_came(run: Run, captured: Path) -> None:
    """The file holds headers, body, path, client and time."""
    result = run("sources", "test", "acme", "--captured", str(captured), "--json")
    trial = json.loads(result.stdout)
    assert (trial["verified"], trial["by"], trial["event_type"]) == (True, "webhook", None)
    assert "the-webhook-secret" not in result.output
    assert "planted-body" not in result.output


def test_a_number_that_is_not_there_is_a_finding(run: Run, captured: Path) -> None:
    result = run("sources", "test", "acme", "--captured", str(captured), "--number", "2")
    assert (result.exit_code, result.stderr) == (1, f"error: request_unknown: {captured} holds 1 requests\n")


def test_another_file_is_refused(run: Run, captured: Path) -> None:
    result = run("sources", "test", "acme", "--captured", str(captured.parent.parent / "pipeline.toml"))
    assert result.exit_code == 2
    assert "is not a file of `sources capture`" in result.stderr


def test_captured_excludes_files_of_ones_own(run: Run, captured: Path) -> None:
    assert run("sources", "test", "acme", "--captured", str(captured), "--path", "/x").exit_code == 2


class Waiting:
    """Replaces the waiting: shows one request, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, requests: list[RefusedRequest]) -> None:
        self.errands: list[CaptureTask] = []
        self._requests = requests
        monkeypatch.setattr("pipeline.cli.sources.capture", self._capture)

    async def _capture(self, capturing: CaptureTask, show: Show) -> int:
        self.errands.append(capturing)
        for number, request in enumerate(self._requests, 1):
            show(capturing.folder / "file", number, request)
        return len(self._requests)


def test_each_request_comes_with_the_command_that_tries_it(
    run: Run, captured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting(monkeypatch, [REQUEST])
    file = captured.parent / "file"
    result = run("sources", "capture", "acme", "--for", "10m")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "1  2026-01-22T22:43:59.000+00:00  not_verified  27 bytes from 192.0.2.7",
            f"    pipeline sources test ecs.acme --captured {file} --number 1",
        ],
    )
    assert result.stderr == "1 requests captured; their file is deleted\n"
    [capturing] = waiting.errands
    assert (capturing.folder, capturing.source, capturing.limit, capturing.output) == (
        captured.parent,
        SOURCE,
        100,
        None,
    )
    assert timedelta(minutes=9) < capturing.until - now() <= timedelta(minutes=10)


def test_the_command_names_the_settings_that_were_named(
    run: Run, captured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Waiting(monkeypatch, [REQUEST])
    config = captured.parent.parent / "pipeline.toml"
    result = run("--config", str(config), "sources", "capture", "acme", "--for", "10m")
    assert result.stdout.splitlines()[1].startswith(f"    pipeline --config {config} sources test ecs.acme --captured ")


def test_for_scripts_it_is_a_line_of_json_each(run: Run, captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Waiting(monkeypatch, [REQUEST])
    output = captured.parent.parent / "refused.jsonl"
    result = run("sources", "capture", "acme", "--for", "1h", "--limit", "1", "--output", str(output), "--json")
    assert json.loads(result.stdout) == {
        "number": 1,
        "at": "2026-01-22T22:43:59.000+00:00",
        "reason": "not_verified",
        "client": "192.0.2.7",
        "bytes": 27,
        "file": str(output),
        "try": f"pipeline sources test ecs.acme --captured {output} --number 1",
    }
    assert result.stderr == f"1 requests captured; they are in {output}: delete it when you are done\n"


def test_nothing_captured_is_a_finding(run: Run, captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del captured
    Waiting(monkeypatch, [])
    result = run("sources", "capture", "acme", "--for", "10m")
    assert (result.exit_code, result.stderr) == (1, "no request was refused\n")


def test_more_than_an_hour_is_refused(run: Run, captured: Path) -> None:
    del captured
    result = run("sources", "capture", "acme", "--for", "2h")
    assert (result.exit_code, result.stderr.partition(": ")[2].partition(":")[0]) == (2, "capture_span")


def test_without_a_folder_it_says_what_to_write(run: Run, home: Path) -> None:
    del home
    result = run("sources", "capture", "acme", "--for", "10m")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: capture_off: ingress.capture_dir is not set: write [ingress] capture_dir")
