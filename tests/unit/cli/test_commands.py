"""What the commands share that change something: reason, receipt, audit entry, repetition after an interruption."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from support.command_line import Kill, Killed, KillingPorts, RememberingPorts, RememberingPublisher, Run
from support.job_world import JOB, World

from pipeline.app import Ports
from pipeline.cli.root import cli
from pipeline.contracts import OutgoingRecord, RecordPosition, Topic, first_values
from pipeline.errors import TransientError
from pipeline.jobs.partners import Answer
from pipeline.kafka import KafkaSettings
from pipeline.observability import Metrics
from pipeline.storage import LocalStore

NAME: Final = f"acme/{JOB}"
WHY: Final = ("--reason", "INC-7", "--yes")
REFUSAL: Final = Answer("refused", 404, "callback_unknown_job", "No batch job found")


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
    _save(home, _refused)


def open_(home: Path) -> None:
    """Put a job into the store that nobody has begun."""
    _save(home, _announced)


def parked(home: Path) -> None:
    """Put a job into the store that waits for its input host, until tomorrow."""
    _save(home, _parked)


async def _parked(world: World) -> None:
    record = world.announce()
    await world.deliver(world.watch, record)
    error = TransientError("source_unavailable", "The input storage answered 503.")
    await world.parking.park(record, "process", error, due=datetime.now(UTC) + timedelta(days=1))


async def _refused(world: World) -> None:
    world.ecs.answers = [REFUSAL]
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.run(record)


async def _announced(world: World) -> None:
    record = world.announce()
    await world.process.arrive(record)
    await world.deliver(world.watch, record)


def _save(home: Path, work: Callable[[World], Awaitable[None]]) -> None:
    world = World()

    async def save() -> None:
        await work(world)
        store = LocalStore(home / "store")
        for key, data in world.memory.objects.items():
            await store.create(key, data)
        await store.close()

    asyncio.run(save())


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
        "error: reason_missing: give --reason, which the audit log keeps, or --dry-run, which changes nothing\n",
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


COMMANDS: Final[Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]]] = {
    "purge": (refused, ("job", "purge", NAME)),
    "notify": (refused, ("job", "notify", NAME)),
    "notify-all": (refused, ("job", "notify", "--all-refused")),
    "cancel": (open_, ("job", "cancel", NAME)),
    "retry": (parked, ("job", "retry", NAME)),
    "retry-all": (parked, ("job", "retry", "--all-waiting")),
    "pause": (open_, ("integration", "pause", "acme", "--until", "2h")),
    "resume": (parked, ("integration", "resume", "acme")),
    "cancel-removed": (open_, ("job", "cancel", "--all-open", "--integration", "acme")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_killed_anywhere_is_completed_by_its_id(
    tmp_path_factory: pytest.TempPathFactory, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Apart from repeats, it publishes and stores the same as a command that was not killed."""
    if name == "cancel-removed":
        settings = (home / "pipeline.toml").read_text()
        (home / "pipeline.toml").write_text(settings.replace("ecs.acme", "ecs.other"))
    whole, wanted = _killed(home, name, Kill())
    assert "after:store.command" in whole.points
    for at, point in enumerate(whole.points):
        folder = tmp_path_factory.mktemp("killed")
        for file in ("pipeline.toml", "webhook", "token"):
            shutil.copy(home / file, folder / file)
        monkeypatch.chdir(folder)
        assert _killed(folder, name, Kill(at))[1] == wanted, point


def _killed(home: Path, name: str, kill: Kill) -> tuple[Kill, object]:
    """Run a command, and again by its id if it was killed; return the points, and what was published and stored."""
    prepare, arguments = COMMANDS[name]
    prepare(home)
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
    stored = {re.sub(r"(purge/|ended/acme/)\d+(/\d{4})?/", r"\1TIME/", one) for one in stored}
    stored = {re.sub(r"due/\d+", "due/NOW" if _is_due(one) else "due/LATER", one) for one in stored}
    return kill, (published, stored)


def _is_due(path: str) -> bool:
    found = re.search(r"due/(\d{14})/", path)
    return found is not None and found[1] <= f"{datetime.now(UTC):%Y%m%d%H%M%S}"


def _invoke(ports: Ports, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="pipeline", obj=ports)


def test_only_the_same_command_is_repeated_by_its_id(home: Path, run: Run) -> None:
    refused(home)
    run("job", "notify", NAME, *WHY)
    (file,) = receipts(home)
    other = run("job", "purge", NAME, *WHY, "--id", file.stem)
    assert (other.exit_code, other.stderr.split(": ")[1]) == (2, "command_differs")
    assert "belongs to another command: job notify;" in other.stderr
    for unknown in ("1769033039295-00000000", "no id/at all"):
        result = run("job", "notify", NAME, *WHY, "--id", unknown)
        assert (result.exit_code, result.stderr.split(": ")[1]) == (1, "command_unknown")
    file.write_text("{")
    damaged = run("job", "notify", NAME, *WHY, "--id", file.stem)
    assert (damaged.exit_code, damaged.stderr) == (
        1,
        f"error: command_unreadable: commands/{file.stem}.json cannot be read; give the command again without --id\n",
    )


def test_a_repeated_notification_has_the_same_name(home: Path, run: Run) -> None:
    """So CONFIRM finds the receipt of the first one, and ECS gets the callback once."""
    refused(home)
    run("job", "notify", NAME, *WHY)
    (file,) = receipts(home)
    run("job", "notify", NAME, *WHY, "--id", file.stem)
    names = {json.loads(one.value)["again"] for one in sent() if one.topic is Topic.BATCH_UPLOADED}
    assert names == {f"cli-{file.stem}"}


class Slow(RememberingPublisher):
    """A broker that takes 50 ms for each record."""

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        await asyncio.sleep(0.05)
        return await super().publish(record)


class SlowPorts(RememberingPorts):
    def publisher(
        self, kafka: KafkaSettings, *, client_id: str, metrics: Metrics | None = None
    ) -> RememberingPublisher:
        del metrics
        return Slow(kafka, client_id=client_id)


def test_all_refused_callbacks_are_sent_again_by_one_command(home: Path) -> None:
    """34 jobs took 94 s, one process each. Here one after another would take 3.4 s; 16 at a time take 0.3 s."""
    guids = [UUID(int=number) for number in range(1, 35)]

    async def many(world: World) -> None:
        for guid in guids:
            world.ecs.answers = [REFUSAL]
            world.bus.published.clear()
            record = world.announce(job_guid=str(guid), input_file_url=f"https://files.example/{guid.int}.csv")
            await world.deliver(world.watch, record)
            await world.run(record)

    _save(home, many)
    begun = time.monotonic()
    result = _invoke(SlowPorts(), "job", "notify", "--all-refused", *WHY, "--json")
    took = time.monotonic() - begun
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["job"] for line in lines] == [f"acme/{guid}" for guid in guids]
    assert len({line["command"] for line in lines}) == 1
    assert result.stderr.endswith("34 jobs: the callback will be sent again\n")
    assert Counter(one.topic for one in sent()) == {Topic.BATCH_UPLOADED: 34, Topic.AUDIT_EVENTS: 34}
    assert took < 2.5
    (receipt,) = receipts(home)
    assert len(json.loads(receipt.read_text())["targets"]) == 34


def test_many_jobs_are_counted_before_they_are_changed(home: Path, run: Run) -> None:
    refused(home)
    dry = run("job", "notify", "--all-refused", "--dry-run")
    assert (dry.stdout, dry.stderr) == (
        f"{NAME}: the callback would be sent again\n",
        "1 job: the callback would be sent again\n",
    )
    no = run("job", "notify", "--all-refused", "--reason", "INC-7", stdin="n\n")
    assert no.exit_code == 1
    assert "Send 1 callbacks again? [y/N]" in no.stderr
    assert receipts(home) == []
    nothing = run("job", "notify", "--all-refused", "--integration", "other", *WHY)
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "0 jobs: the callback will be sent again\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("notify",),
        ("cancel",),
        ("notify", NAME, "--all-refused"),
        ("notify", NAME, "--integration", "acme"),
        ("cancel", "--all-open"),
    ],
)
def test_what_to_act_on_is_said_once(home: Path, run: Run, arguments: tuple[str, ...]) -> None:
    refused(home)
    result = run("job", *arguments, *WHY)
    assert (result.exit_code, result.stderr[:18]) == (2, "error: which_jobs:")


def test_a_job_is_cancelled_after_a_question(home: Path, run: Run) -> None:
    open_(home)
    no = run("job", "cancel", NAME, "--reason", "INC-7", stdin="n\n")
    assert (no.exit_code, receipts(home), sent()) == (1, [], [])
    yes = run("job", "cancel", NAME, "--reason", "INC-7", stdin="y\n")
    assert yes.stdout == f"{NAME}: cancelled\n"
    (failed,) = [one for one in sent() if one.topic is Topic.BATCH_FAILED]
    assert json.loads(failed.value)["reason"] == "cancelled"
    assert first_values(failed.headers)["ce_source"].startswith("/pipeline/cli:")
    again = run("job", "cancel", NAME, *WHY)
    assert again.exit_code == 0  # it is cancelled already; the command only repeats the publication


def test_a_decided_job_is_not_cancelled(home: Path, run: Run) -> None:
    refused(home)
    result = run("job", "cancel", NAME, *WHY, "--json")
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: job_decided: {NAME} is decided: completed; nothing is left to cancel\n",
    )


def test_open_jobs_of_a_removed_integration_have_a_way_out(home: Path, run: Run) -> None:
    open_(home)
    settings = (home / "pipeline.toml").read_text()
    (home / "pipeline.toml").write_text(settings.replace("ecs.acme", "ecs.other"))
    result = run("job", "cancel", "--all-open", "--integration", "acme", *WHY)
    assert result.stdout == (f"{NAME}: cancelled; ECS is not notified, because the settings lack its integration\n")
    assert run("job", "list").stdout.splitlines()[1:] == []
    view = json.loads(run("job", "show", NAME, "--json").stdout)
    assert (view["state"], view["outcome"]["reason"]) == ("closed", "cancelled")


def test_waiting_jobs_continue_by_one_command(home: Path, run: Run) -> None:
    parked(home)
    assert json.loads(run("job", "retry", "--all-waiting", "--dry-run", "--json").stdout) == {
        "resumed": 1,
        "integrations": {"acme": 1},
        "command": None,
    }
    other = run("job", "retry", "--all-waiting", "--code", "circuit_open", *WHY)
    assert other.stdout == "0 jobs continue now\n"
    done = json.loads(run("job", "retry", "--all-waiting", "--integration", "acme", *WHY, "--json").stdout)
    assert (done["resumed"], done["integrations"]) == (1, {"acme": 1})
    (audited,) = [json.loads(one.value) for one in sent() if one.topic is Topic.AUDIT_EVENTS]
    assert (audited["action"], audited["integration"]) == ("job.retried", "acme")
    assert audited["detail"]["resumed"] == 1


def test_a_retry_that_is_not_possible_says_why(home: Path, run: Run) -> None:
    refused(home)
    result = run("job", "retry", NAME, *WHY)
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: job_completed: {NAME} is completed; if ECS refused the callback: pipeline job notify {NAME}\n",
    )
    assert receipts(home) == []


def test_an_integration_is_paused_and_resumed(home: Path, run: Run) -> None:
    open_(home)
    dry = run("integration", "pause", "acme", "--until", "2h", "--dry-run")
    assert dry.stdout.startswith("acme: would be paused until ")
    paused = run("integration", "pause", "acme", "--until", "2h", *WHY)
    assert paused.stdout.startswith("acme: is paused until ")
    (file,) = home.glob("store/switches/acme/*.json")
    switch = json.loads(file.read_text())
    assert (switch["paused"], switch["reason"]) == (True, "INC-7")
    resumed = json.loads(run("integration", "resume", "acme", *WHY, "--json").stdout)
    assert (resumed["paused"], resumed["resumed"]) == (False, 0)
    actions = [json.loads(one.value)["action"] for one in sent()]
    assert actions == ["integration.paused", "integration.resumed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("acme", "--until", "2020-01-01T00:00:00Z"), "is not in the future"),
        (("acme",), "Missing option '--until'"),
        (("other", "--until", "2h"), "the settings have no job integration 'other'"),
    ],
)
def test_a_pause_needs_an_end_ahead_and_an_integration(
    home: Path, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    del home
    result = run("integration", "pause", *arguments, *WHY)
    assert result.exit_code == 2
    assert said in result.stderr
