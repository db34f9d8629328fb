"""What the commands share that change something: reason, receipt, audit entry, repetition after an interruption."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result
from support.command_line import RememberingPorts, RememberingPublisher, Run
from support.effects import NoticingPublisher, NoticingStore
from support.job_world import JOB, World

from pipeline.app import Ports
from pipeline.app.ports import ConnectedPublisher
from pipeline.cli.root import cli
from pipeline.contracts import OutgoingRecord, Topic, first_values
from pipeline.jobs.partners import Answer
from pipeline.kafka import KafkaSettings
from pipeline.observability import Metrics
from pipeline.storage import LocalStore, ObjectStore, StoreSettings

NAME: Final = f"acme/{JOB}"
WHY: Final = ("--reason", "INC-7", "--yes")
REFUSAL: Final = Answer("refused", 404, "callback_unknown_job", "No batch job found")


class Killed(Exception):
    """The command ends here, as by kill -9: nothing of ours expects it."""


@dataclass
class Kill:
    """Ends a command at one of its effects; before it, counts them."""

    at: int = -1
    points: list[str] = field(default_factory=list)

    @contextmanager
    def around(self, effect: str) -> Iterator[None]:
        self._reach(f"before:{effect}")
        yield
        self._reach(f"after:{effect}")

    def _reach(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) - 1 == self.at:
            raise Killed(point)


class KillingPorts(Ports):
    """Ports whose broker only remembers, and whose effects are where a command may be killed."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill

    @asynccontextmanager
    async def publisher(
        self, kafka: KafkaSettings, *, client_id: str, metrics: Metrics | None = None
    ) -> AsyncIterator[ConnectedPublisher]:
        del metrics
        yield NoticingPublisher(RememberingPublisher(kafka, client_id=client_id), self._kill.around)

    def store(self, settings: StoreSettings) -> ObjectStore:
        return NoticingStore(super().store(settings), self._kill.around)


@pytest.fixture
def ports() -> Ports:
    return RememberingPorts()


@pytest.fixture(autouse=True)
def publishers() -> Iterator[list[RememberingPublisher]]:
    RememberingPublisher.made.clear()
    yield RememberingPublisher.made
    RememberingPublisher.made.clear()


def refused(home: Path) -> None:
    """Put a job into the store whose callback ECS refused."""
    world = World()

    async def work() -> None:
        world.ecs.answers = [REFUSAL]
        record = world.announce()
        await world.deliver(world.watch, record)
        await world.run(record)
        store = LocalStore(home / "store")
        for key, data in world.memory.objects.items():
            await store.create(key, data)
        await store.close()

    asyncio.run(work())


def receipts(home: Path) -> list[Path]:
    return sorted(home.glob("store/commands/*.json"))


def sent() -> list[OutgoingRecord]:
    return [record for publisher in RememberingPublisher.made for record in publisher.published]


@pytest.mark.parametrize("command", ["purge", "notify"])
def test_a_reason_is_needed(home: Path, run: Run, publishers: list[RememberingPublisher], command: str) -> None:
    refused(home)
    result = run("job", command, NAME, "--reason", " ", "--yes")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: reason_missing: --reason is needed: why the command is given; or --dry-run, which changes nothing\n",
    )
    assert (receipts(home), publishers) == ([], [])


@pytest.mark.parametrize("command", ["purge", "notify"])
def test_a_dry_run_changes_nothing_and_needs_no_reason(
    home: Path, run: Run, publishers: list[RememberingPublisher], command: str
) -> None:
    refused(home)
    before = sorted(home.glob("store/**/*"))
    result = run("job", command, NAME, "--dry-run")
    assert result.exit_code == 0
    assert "would be" in result.stdout
    assert (sorted(home.glob("store/**/*")), publishers) == (before, [])


def test_the_receipt_says_who_gave_which_command_and_why(home: Path, run: Run) -> None:
    refused(home)
    result = run("job", "notify", NAME, "--reason", "card 4111 1111 1111 1111, INC-7", "--json")
    (file,) = receipts(home)
    receipt = json.loads(file.read_text())
    assert file.stem == receipt["id"] == json.loads(result.stdout)["command"]
    assert result.stderr == f"command {receipt['id']}\n"
    assert (receipt["command"], receipt["about"]) == ("job notify", {"job": NAME})
    assert receipt["actor"].startswith("cli:")
    assert receipt["reason"].endswith(", INC-7")
    assert "1111" not in file.read_text()


COMMANDS: Final = (("job", "purge", NAME), ("job", "notify", NAME))


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda one: " ".join(one[:2]))
def test_a_command_that_was_killed_anywhere_is_completed_by_its_id(
    tmp_path_factory: pytest.TempPathFactory, home: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """What it published and stored is then the same as if it had not been killed, repeats aside."""
    whole, wanted = _killed(home, arguments, Kill())
    assert "after:store.command" in whole.points
    for at, point in enumerate(whole.points):
        folder = tmp_path_factory.mktemp("killed")
        for name in ("pipeline.toml", "webhook", "token"):
            shutil.copy(home / name, folder / name)
        monkeypatch.chdir(folder)
        assert _killed(folder, arguments, Kill(at))[1] == wanted, point


def _killed(home: Path, arguments: Sequence[str], kill: Kill) -> tuple[Kill, object]:
    """Run a command, and again by its id if it was killed; return the points, and what was published and stored."""
    refused(home)
    RememberingPublisher.made.clear()
    first = _invoke(KillingPorts(kill), *arguments, *WHY)
    if kill.at < 0:
        assert first.exit_code == 0, first.output
    else:
        assert isinstance(first.exception, Killed)
        repeat = [f"--id={file.stem}" for file in receipts(home)]
        second = _invoke(RememberingPorts(), *arguments, *WHY, *repeat)
        assert second.exit_code == 0, second.output
    (receipt,) = receipts(home)
    published = {(one.topic, one.key, first_values(one.headers)["ce_type"]) for one in sent()}
    assert len({first_values(one.headers)["ce_id"] for one in sent()}) == len(published)  # a repeat has the same id
    files = {str(path.relative_to(home)) for path in home.glob("store/**/*") if path.is_file()}
    stored = {re.sub(r"-[0-9a-f]{32}\.csv", "-NONCE.csv", one.replace(receipt.stem, "ID")) for one in files}
    return kill, (published, stored)


def _invoke(ports: Ports, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="pipeline", obj=ports)


def test_only_the_same_command_is_repeated_by_its_id(home: Path, run: Run) -> None:
    refused(home)
    run("job", "notify", NAME, *WHY)
    (file,) = receipts(home)
    other = run("job", "purge", NAME, *WHY, "--id", file.stem)
    assert (other.exit_code, other.stderr.split(": ")[1]) == (2, "command_differs")
    assert "that of another command: job notify;" in other.stderr
    for unknown in ("1769033039295-00000000", "no id/at all"):
        result = run("job", "notify", NAME, *WHY, "--id", unknown)
        assert (result.exit_code, result.stderr.split(": ")[1]) == (1, "command_unknown")
    file.write_text("{")
    damaged = run("job", "notify", NAME, *WHY, "--id", file.stem)
    assert (damaged.exit_code, damaged.stderr) == (
        1,
        f"error: command_unreadable: commands/{file.stem}.json is damaged; leave out --id\n",
    )


def test_a_repeated_notification_has_the_same_name(home: Path, run: Run) -> None:
    """So CONFIRM finds the receipt of the first one, and ECS gets the callback once."""
    refused(home)
    run("job", "notify", NAME, *WHY)
    (file,) = receipts(home)
    run("job", "notify", NAME, *WHY, "--id", file.stem)
    names = {json.loads(one.value)["again"] for one in sent() if one.topic is Topic.BATCH_UPLOADED}
    assert names == {f"cli-{file.stem}"}
