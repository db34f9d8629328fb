"""Refused requests are stored while a person asks for them: for a limited time, bounded, for that person alone."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.webhooks.capture import (
    MOST_BYTES,
    Capture,
    CaptureBusy,
    RefusedRequest,
    ask,
    captured_file,
    end,
    read_captured,
)
from pipeline.webhooks.sources import WebhookRequest

SOURCE = "ecs.acme"
MINUTE = timedelta(minutes=1)
REQUEST = RefusedRequest(
    at=datetime.now(UTC),
    reason="not_verified",
    request=WebhookRequest(
        path="/managed_cards/watch",
        headers=(("X-Webhook-Secret", b"planted"), ("x-bytes", b"\xff\x00")),
        body=b'{"a": "\xc3\xa9"}',
        client="192.0.2.7",
    ),
)


class Ground:
    """A folder with one ingress process, and a clock that stops until it is set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = datetime.now(UTC)
        self.capture = self.process()

    def process(self) -> Capture:
        return Capture(self.folder, clock=lambda: self.now)

    def files(self) -> list[str]:
        return sorted(file.name for file in self.folder.iterdir())


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path / "capture")


def test_a_refused_request_is_kept_as_it_came(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    ground.capture.refused(SOURCE, REQUEST)
    assert read_captured(captured_file(ground.folder, wanted)) == [REQUEST]


def test_the_file_begins_with_its_expiry_and_is_its_owners_alone(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    file = captured_file(ground.folder, wanted)
    assert json.loads(file.read_text())["until"] == wanted.until.isoformat().replace("+00:00", "Z")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(ground.folder.stat().st_mode) == 0o700


def test_nothing_is_kept_unless_it_is_wanted(ground: Ground) -> None:
    ground.capture.poll()
    ground.capture.refused(SOURCE, REQUEST)
    assert ground.files() == []


def test_requests_of_another_source_are_not_kept(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    ground.capture.refused("ecs.other", REQUEST)
    assert read_captured(captured_file(ground.folder, wanted)) == []


def test_several_processes_share_file_and_limit(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=3)
    processes = [ground.capture, ground.process()]
    for process in processes:
        process.poll()
    for number in range(10):
        processes[number % 2].refused(SOURCE, replace(REQUEST, reason=str(number)))
    kept = read_captured(captured_file(ground.folder, wanted))
    assert [request.reason for request in kept] == ["0", "1", "2"]


def test_a_file_does_not_outgrow_its_bound(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    large = replace(REQUEST, request=replace(REQUEST.request, body=bytes(MOST_BYTES // 2)))
    for _ in range(3):
        ground.capture.refused(SOURCE, large)
    assert len(read_captured(captured_file(ground.folder, wanted))) == 1


def test_what_has_expired_is_deleted_by_the_next_that_looks(ground: Ground) -> None:
    """Also where the command and the process that wrote it were killed."""
    ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    ground.capture.refused(SOURCE, REQUEST)
    ground.now += MINUTE
    ground.process().poll()
    assert ground.files() == []


def test_after_its_time_nothing_is_kept_even_before_anybody_looked(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    ground.capture.refused(SOURCE, replace(REQUEST, at=wanted.until))
    assert read_captured(captured_file(ground.folder, wanted)) == []


def test_a_file_whose_command_has_ended_goes_and_stays_away(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    end(ground.folder, wanted)
    ground.capture.refused(SOURCE, REQUEST)
    assert ground.files() == []


def test_a_file_begun_behind_the_commands_back_is_deleted_at_the_next_look(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    (ground.folder / f"{SOURCE}.wanted").unlink()
    ground.capture.poll()
    assert not captured_file(ground.folder, wanted).exists()


def test_two_commands_cannot_capture_one_source(ground: Ground) -> None:
    ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    with pytest.raises(CaptureBusy):
        ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)


def test_a_capture_after_another_has_a_file_of_its_own(ground: Ground) -> None:
    first = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    end(ground.folder, first)
    second = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    ground.capture.refused(SOURCE, REQUEST)
    assert ground.files() == sorted([captured_file(ground.folder, second).name, f"{SOURCE}.wanted"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text("{}"),
        lambda file: file.chmod(0o644),
        lambda file: file.write_text(file.read_text().replace("ecs.acme", "../../etc.x")),
    ],
    ids=["no request", "readable by others", "another place"],
)
def test_a_wish_that_no_command_of_this_user_wrote_is_ignored(ground: Ground, spoil: Callable[[Path], object]) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    spoil(ground.folder / f"{SOURCE}.wanted")
    ground.capture.poll()
    assert not captured_file(ground.folder, wanted).exists()


def test_a_pipe_instead_of_a_file_blocks_nothing(ground: Ground) -> None:
    """A user who may write into the folder must not stop the looking: expired files would stay."""
    ground.folder.mkdir()
    for name in (f"{SOURCE}.wanted", f"{SOURCE}.0123456789abcdef.captured"):
        os.mkfifo(ground.folder / name, 0o600)
    ground.capture.poll()
    assert ground.files() == [f"{SOURCE}.wanted"]
    (ground.folder / f"{SOURCE}.wanted").unlink()
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    os.mkfifo(captured_file(ground.folder, wanted), 0o600)
    ground.capture.poll()
    assert stat.S_ISREG(captured_file(ground.folder, wanted).stat().st_mode)


def test_a_wish_for_ever_is_deleted(ground: Ground) -> None:
    ask(ground.folder, SOURCE, until=ground.now + timedelta(days=1), limit=10)
    ground.capture.poll()
    assert ground.files() == []


def test_a_file_that_others_may_read_gets_no_request(ground: Ground) -> None:
    """Said once, and the request goes on as if nothing were wanted."""
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    captured_file(ground.folder, wanted).chmod(0o644)
    with capture_logs() as logs:
        ground.capture.refused(SOURCE, REQUEST)
        ground.capture.refused(SOURCE, REQUEST)
    assert [(line["event"], line["why"]) for line in logs] == [
        ("capture_unusable", "another user's file is in its place")
    ]
    assert read_captured(captured_file(ground.folder, wanted)) == []


def test_a_folder_that_cannot_be_used_stops_nothing(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "missing" / "capture", clock=lambda: datetime.now(UTC))
    with capture_logs() as logs:
        capture.poll()
        capture.poll()
        capture.refused(SOURCE, REQUEST)
    assert [line["event"] for line in logs] == ["capture_unusable"]


def test_a_line_that_was_cut_off_is_passed_over(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    ground.capture.poll()
    ground.capture.refused(SOURCE, REQUEST)
    file = captured_file(ground.folder, wanted)
    with file.open("ab") as opened:
        opened.write(b'{"at": "2026')
    assert read_captured(file) == [REQUEST]


async def test_a_process_looks_at_once_when_it_starts(ground: Ground) -> None:
    wanted = ask(ground.folder, SOURCE, until=ground.now + MINUTE, limit=10)
    running = asyncio.create_task(ground.capture.run())
    try:
        async with asyncio.timeout(10):
            while not captured_file(ground.folder, wanted).exists():  # noqa: ASYNC110 - a test looks from outside
                await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.wait([running])
