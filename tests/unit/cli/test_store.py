"""`pipeline store`: orphans and leftovers are listed, and deleted once somebody says why."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from support.command_line import RememberingPorts, RememberingPublisher, Run
from support.job_world import JOB, World

from pipeline.app import Ports
from pipeline.storage import LocalStore, StoreUnavailable

LONG_AGO: Final = 1_700_000_000
WHY: Final = ("--reason", "INC-7", "--yes")
PART: Final = f"jobs/acme/{JOB}/parts/0123456789abcdef/00000000-beef.csv.aes"
FOREIGN: Final = f"jobs/acme/{JOB}/notes.txt"


@pytest.fixture
def ports() -> Ports:
    return RememberingPorts()


@pytest.fixture(autouse=True)
def publishers() -> Iterator[list[RememberingPublisher]]:
    RememberingPublisher.made.clear()
    yield RememberingPublisher.made
    RememberingPublisher.made.clear()


@pytest.fixture
def kept(home: Path) -> set[str]:
    """Put an open job into the store, an orphaned part and a foreign object; return the keys of the job."""
    world = World()

    async def fill() -> None:
        record = world.announce(expires_at="2199-01-01T00:00:00Z")
        await world.deliver(world.watch, record)
        await world.deliver(world.process, record)
        store = LocalStore(home / "store")
        for key, data in world.memory.objects.items():
            await store.create(key, data)
        for key in (PART, FOREIGN):
            await store.create(key, b"12345")

    asyncio.run(fill())
    for path in (home / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (LONG_AGO, LONG_AGO))
    return set(world.memory.objects)


def objects(home: Path) -> set[str]:
    found = {str(path.relative_to(home / "store")) for path in (home / "store").rglob("*") if path.is_file()}
    return {key for key in found if not key.startswith((".", "commands/"))}


@pytest.mark.usefixtures("home")
def test_an_empty_store_has_no_finding(run: Run) -> None:
    result = run("store", "check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "0 objects that nobody needs, 0 bytes\n"


def test_check_lists_what_nobody_needs(home: Path, run: Run, kept: set[str]) -> None:
    result = run("store", "check", "--json")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(row["kind"], row["key"], row["bytes"]) for row in rows} == {("part", PART, 5), ("foreign", FOREIGN, 5)}
    assert {row["written"] for row in rows} == {"2023-11-14T22:13:20+00:00"}
    assert objects(home) == kept | {PART, FOREIGN}
    result = run("store", "check", "--kind", "part")
    assert (result.exit_code, result.stdout.split()[:2]) == (1, ["part", PART])


def test_clean_is_a_dry_run_unless_yes_is_given(
    home: Path, run: Run, kept: set[str], publishers: list[RememberingPublisher]
) -> None:
    result = run("store", "clean")
    assert (result.exit_code, result.stderr) == (0, "would delete 1 objects, 5 bytes; --yes does it\n")
    assert objects(home) == kept | {PART, FOREIGN}
    assert publishers == []
    assert run("store", "clean", "--yes").exit_code == 2


def test_clean_deletes_and_says_so_in_the_audit_log(
    home: Path, run: Run, kept: set[str], publishers: list[RememberingPublisher]
) -> None:
    result = run("store", "clean", *WHY)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (0, "deleted 1 objects, 5 bytes")
    assert objects(home) == kept | {FOREIGN}
    (record,) = publishers[0].published
    event = json.loads(record.value)
    assert event["action"] == "store.cleaned"
    assert event["detail"].items() >= {"objects": 1, "bytes": 5, "part": 1, "reason": "INC-7"}.items()
    assert run("store", "clean", "--kind", "foreign", *WHY).exit_code == 0
    assert objects(home) == kept


def test_objects_whose_names_no_store_takes_stay_and_are_not_counted(
    home: Path, run: Run, kept: set[str], publishers: list[RememberingPublisher]
) -> None:
    named = home / "store" / f"jobs/acme/{JOB}/notes of May.txt"
    named.write_bytes(b"123")
    os.utime(named, (LONG_AGO, LONG_AGO))
    stay = "1 objects stay, because of their names: delete them with other tools"
    result = run("store", "check", "--kind", "foreign")
    assert (result.exit_code, result.stderr) == (1, "2 objects that nobody needs, 8 bytes\n")
    dry = run("store", "clean", "--kind", "foreign")
    assert dry.stderr.splitlines() == ["would delete 1 objects, 5 bytes; --yes does it", stay]
    result = run("store", "clean", "--kind", "foreign", *WHY)
    assert result.stderr.splitlines()[-2:] == ["deleted 1 objects, 5 bytes", stay]
    assert objects(home) == kept | {PART, str(named.relative_to(home / "store"))}
    (record,) = publishers[0].published
    assert json.loads(record.value)["detail"].items() >= {"objects": 1, "bytes": 5, "foreign": 1}.items()
    again = run("store", "clean", "--kind", "foreign", *WHY)
    assert again.stderr.splitlines()[-2:] == ["deleted 0 objects, 0 bytes", stay]


def test_what_was_deleted_before_an_interruption_is_in_the_audit_log(
    home: Path,
    run: Run,
    kept: set[str],
    publishers: list[RememberingPublisher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The repeated command adds an entry about what it deletes itself."""
    monkeypatch.setattr("pipeline.cli.store._BATCH", 1)
    delete, calls = LocalStore.delete_all, 0

    async def fail_later(store: LocalStore, keys: Sequence[str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("gone")
        await delete(store, keys)

    both = ("store", "clean", "--kind", "part", "--kind", "foreign", *WHY)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete_all", fail_later)
        broken = run(*both)
    assert broken.exit_code == 4
    (command,) = [line.split()[1] for line in broken.stderr.splitlines() if line.startswith("command ")]
    assert run(*both, "--id", command).exit_code == 0
    assert objects(home) == kept
    events = [json.loads(record.value) for one in publishers for record in one.published]
    assert [event["detail"]["objects"] for event in events] == [1, 1]
    assert len({event["id"] for event in events}) == 2


def test_what_was_just_written_is_passed_over(home: Path, run: Run, kept: set[str]) -> None:
    os.utime(home / "store" / PART)
    assert run("store", "clean", *WHY).exit_code == 0
    assert objects(home) == kept | {PART, FOREIGN}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("hours", ["0", "0.5", "nan", "inf", "1000000000"])
def test_the_age_is_a_number_of_hours_that_the_calendar_has(run: Run, hours: str) -> None:
    result = run("store", "check", "--hours", hours)
    assert result.exit_code == 2
    assert "--hours" in result.stderr
