"""`pipeline job`, over a job store in a folder that the stages wrote."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support.command_line import RememberingPorts, RememberingPublisher, Run
from support.job_world import CARDS, JOB, MERCHANT, World

from pipeline.app import Ports
from pipeline.cli.job_follow import FollowTimeout, follow_job
from pipeline.cli.job_view import JobView, find_job, parse_job
from pipeline.contracts import Topic
from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.partners import Answer
from pipeline.jobs.receipts import NotificationAttempt
from pipeline.storage import LocalStore

NAME = f"acme/{JOB}"
WHY = ("--reason", "INC-7", "--yes")
REFUSAL = Answer("refused", 404, "callback_unknown_job", "No batch job found")
HTML = b"<!DOCTYPE html><html></html>"


@pytest.fixture
def ports() -> Ports:
    return RememberingPorts()


@pytest.fixture(autouse=True)
def publishers() -> Iterator[list[RememberingPublisher]]:
    RememberingPublisher.made.clear()
    yield RememberingPublisher.made
    RememberingPublisher.made.clear()


def save(world: World, home: Path) -> None:
    """Put what the stages wrote where the settings have the store."""

    async def copy() -> None:
        store = LocalStore(home / "store")
        for key, data in world.memory.objects.items():
            await store.create(key, data)
        await store.close()

    asyncio.run(copy())


async def announced(world: World) -> None:
    record = world.announce()
    await world.process.arrive(record)
    await world.deliver(world.watch, record)


async def done(world: World, data: bytes = CARDS, answer: Answer | None = None) -> None:
    world.ecs.answers = [answer] if answer else []
    record = world.announce(data)
    await world.deliver(world.watch, record)
    await world.run(record)


def half_done() -> World:
    """A job of three chunks whose worker died in the middle of the third."""
    world = World(csv_limits={"chunk_records": 1})

    async def work() -> None:
        record = world.announce()
        await world.deliver(world.watch, record)
        await world.deliver(world.process, record)

    asyncio.run(work())
    for key in list(world.memory.objects):
        if key.endswith(("processed.json", "00000002.json")):
            del world.memory.objects[key]
    return world


def shown(run: Run, *arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def test_an_announced_job_is_listed_as_open(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(announced(world))
    save(world, home)
    (view,) = [json.loads(line) for line in run("job", "list", "--json").stdout.splitlines()]
    assert (view["job"], view["state"], view["record_count"]) == (NAME, "announced", 3)
    assert run("job", "list").stdout.splitlines() == [
        "job\tattempt\tstate\tdeadline\trecords\tok\tfailed\treason",
        f"{NAME}\t1\tannounced\t2026-01-21T12:59:30+00:00\t-\t-\t-\t-",
    ]


def test_the_list_can_be_limited(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(announced(world))
    save(world, home)
    assert run("job", "list", "--integration", "other", "--json").stdout == ""
    assert len(run("job", "list", "--limit", "1", "--json").stdout.splitlines()) == 1


def test_a_confirmed_job_is_shown_and_listed_no_more(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(done(world))
    save(world, home)
    assert run("job", "list", "--json").stdout == ""
    assert run("job", "list").stderr.startswith("no such jobs; ")
    view = shown(run, "job", "show", NAME)
    assert view["state"] == "confirmed"
    assert view["merchant_guid"] == str(MERCHANT)
    assert (view["processed"]["ok"], view["processed"]["failed"]) == (2, 1)
    assert view["outcome"]["outcome"] == "completed"
    assert view["notification"]["code"] == "callback_accepted"
    assert (view["tries"], view["chunks"], len(view["announcements"])) == (1, 1, 1)
    lines = run("job", "show", NAME).stdout.splitlines()
    assert lines[:7] == [
        f"job             {NAME}",
        "state           confirmed: ECS confirmed the outcome; nothing is left to do",
        lines[2],
        "announcements   1",
        "chunks          1",
        "cards           3: 2 ok, 1 failed",
        "callbacks sent  1",
    ]
    assert re.fullmatch(r"deadline        2026-01-21T12:59:30\+00:00 \(\d+ d ago\)", lines[2])
    assert lines[7] == "answer of ECS   confirmed (200 callback_accepted)"


def test_show_says_when_each_step_was(home: Path, run: Run) -> None:
    world = World()

    async def slow() -> None:
        record = world.announce()
        await world.deliver(world.watch, record)
        world.ecs.answers = [TransientError("callback_server_error", "ECS answered 500")]
        with suppress(TransientError):
            await world.run(record)
        world.clock.forward(minutes=5)
        await world.run(record)

    asyncio.run(slow())
    save(world, home)
    times = {one["step"]: one["at"][11:16] for one in shown(run, "job", "show", NAME)["steps"]}
    assert times == {
        "announced": "12:00",
        "processed": "12:00",
        "decided": "12:00",
        "first_callback": "12:00",
        "last_callback": "12:05",
        "ended": "12:05",
    }
    assert run("job", "show", NAME).stdout.splitlines()[-1] == "2026-01-21T12:05:00+00:00  ended"


def test_a_job_of_a_removed_integration_is_found_by_its_guid_alone(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(announced(world))
    save(world, home)
    settings = (home / "pipeline.toml").read_text()
    (home / "pipeline.toml").write_text(settings.replace("ecs.acme", "ecs.other"))
    assert shown(run, "job", "show", str(JOB))["job"] == NAME
    assert run("job", "list").stdout.splitlines()[1].startswith(NAME)


def test_nothing_shown_holds_a_url_or_a_body(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(done(world))
    save(world, home)
    for arguments in (("job", "show", NAME), ("job", "show", NAME, "--json"), ("job", "follow", NAME, "--json")):
        output = run(*arguments).output
        assert "https://" not in output
        assert "planted" not in output
        assert '"success"' not in output


def test_a_failed_job_says_why(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(done(world, HTML))
    save(world, home)
    view = shown(run, "job", "show", str(JOB))
    assert view["outcome"]["reason"] == "csv_not_a_csv"
    assert view["processed"] is None


def test_a_job_in_work_shows_its_chunks(home: Path, run: Run) -> None:
    save(half_done(), home)
    view = shown(run, "job", "show", NAME)
    assert (view["state"], view["chunks"]) == ("processing", 2)


def test_an_unknown_job_is_a_finding(home: Path, run: Run) -> None:
    del home
    result = run("job", "show", NAME)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: job_unknown: the store knows no job {JOB}; give INTEGRATION/GUID, and see `pipeline job list`\n"
    )


def test_a_word_that_names_no_job_is_a_wrong_command_line(home: Path, run: Run) -> None:
    del home
    result = run("job", "show", "acme/7")
    assert result.exit_code == 2
    assert result.stderr == ("error: job_name: 'acme/7' names no job; write INTEGRATION/GUID, or the GUID alone\n")


def test_a_guid_alone_is_looked_for_in_every_integration() -> None:
    assert parse_job(str(JOB), ["a", "b"]) == [JobRef("a", JOB), JobRef("b", JOB)]
    assert parse_job(f"x/{JOB}", ["a"]) == [JobRef("x", UUID(str(JOB)))]


def test_the_latest_attempt_counts(home: Path, run: Run) -> None:
    world = World(policies={"reannouncement_after_failure": "new_attempt"})

    async def twice() -> None:
        await done(world, HTML)
        world.clock.forward(minutes=1)
        await world.process.arrive(world.announce(expires_at="2026-01-21T15:00:00Z"))

    asyncio.run(twice())
    save(world, home)
    view = shown(run, "job", "show", NAME)
    assert (view["attempt"], view["state"]) == (2, "announced")


DONE = "completed: 3 cards, 2 ok, 1 failed"
AGAIN = f"`pipeline job notify {NAME}` sends it again"


@pytest.mark.parametrize(
    ("data", "answer", "code", "ending"),
    [
        (CARDS, None, 0, f"{DONE}; ECS confirmed it"),
        (
            HTML,
            None,
            1,
            r"failed \(csv_not_a_csv\): .*[^.]; ECS confirmed it",
        ),
        (
            CARDS,
            REFUSAL,
            1,
            rf"{DONE}; ECS refused the callback \(404 callback_unknown_job\): {AGAIN}",
        ),
    ],
)
def test_follow_ends_with_how_the_job_ended(
    home: Path, run: Run, *, data: bytes, answer: Answer | None, code: int, ending: str
) -> None:
    world = World()
    asyncio.run(done(world, data, answer))
    save(world, home)
    result = run("job", "follow", NAME)
    assert result.exit_code == code
    assert result.stdout.startswith(f"job={NAME}  attempt=1  state=")
    assert "None" not in result.stdout
    assert re.fullmatch(f"{NAME} {ending}", result.stdout.splitlines()[-1])


def test_follow_gives_up_after_the_time_given(home: Path, run: Run) -> None:
    del home
    result = run("job", "follow", NAME, "--timeout", "0")
    assert result.exit_code == 4
    assert result.stderr == "error: follow_timeout: the job did not end within 0 s; it goes on\n"


async def test_follow_shows_every_change_once() -> None:
    world = World()
    jobs = JobStore(world.memory)
    seen: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.005)
        record = world.announce()
        await world.process.arrive(record)
        await asyncio.sleep(0.02)
        await world.run(record)

    def show(view: JobView) -> None:
        seen.append(view.state)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        view = await follow_job(jobs, lambda: find_job(jobs, [world.ref]), show, 5, pause=0.002)
    assert view.state == "confirmed"
    assert (seen[0], seen[-1]) == ("announced", "confirmed")
    assert len(seen) == len(set(seen))
    with pytest.raises(FollowTimeout):
        await follow_job(jobs, lambda: find_job(jobs, [JobRef("acme", MERCHANT)]), show, 0.005, pause=0.001)


def test_the_result_of_a_refused_job_can_be_written(home: Path, run: Run) -> None:
    world = World(csv_limits={"chunk_records": 2})
    asyncio.run(done(world, answer=REFUSAL))
    ((_, put),) = world.objects.put
    save(world, home)
    report = shown(run, "job", "result", NAME, "--output", "result.csv")
    assert (home / "result.csv").read_bytes() == put
    assert report == {
        "job": NAME,
        "records": 3,
        "ok": 2,
        "failed": 1,
        "complete": True,
        "bytes": len(put),
        "sha256": hashlib.sha256(put).hexdigest(),
    }


def test_the_result_of_a_job_half_done_ends_where_it_came_to(home: Path, run: Run) -> None:
    save(half_done(), home)
    report = shown(run, "job", "result", NAME, "--output", "result.csv")
    assert (report["records"], report["ok"], report["complete"]) == (2, 2, False)
    assert (home / "result.csv").read_bytes().count(b"\n") == 3
    assert "complete  False" in run("job", "result", NAME, "--output", "again.csv").stdout


def test_the_result_of_a_confirmed_job_is_gone(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(done(world))
    save(world, home)
    result = run("job", "result", NAME, "--output", "result.csv")
    assert result.exit_code == 1
    assert result.stderr == f"error: result_gone: {NAME}: no result part is in the store (any more)\n"
    assert not (home / "result.csv").exists()


def test_purge_deletes_the_cards_and_is_recorded_in_the_audit_log(
    home: Path, run: Run, publishers: list[RememberingPublisher]
) -> None:
    world = World()
    asyncio.run(done(world, answer=REFUSAL))
    save(world, home)
    gone = shown(run, "job", "purge", NAME, *WHY)
    assert gone["objects"] > 0
    assert run("job", "result", NAME, "--output", "result.csv").exit_code == 1
    assert not list(home.glob("store/**/*.csv*"))
    ((event,),) = [one.on(Topic.AUDIT_EVENTS) for one in publishers]
    told = json.loads(event.value)
    assert (told["action"], told["job_guid"], told["detail"]) == (
        "job.purged",
        str(JOB),
        {"objects": gone["objects"], "texts": gone["texts"], "command": gone["command"], "reason": "INC-7"},
    )
    assert told["actor"].startswith("cli:")
    assert run("job", "show", NAME).exit_code == 0
    assert run("job", "purge", NAME, *WHY).stdout == f"{NAME}: 0 objects deleted, 0 erased in part\n"
    assert gone["texts"] > 0
    assert not [file for file in (home / "store/jobs").rglob("*.json") if b"planted" in file.read_bytes()]


def test_purge_leaves_the_texts_while_ecs_is_notified_again(home: Path, run: Run) -> None:
    """All tries of one callback say the same: before, the next try had another body and another id."""
    world = World()
    asyncio.run(done(world, HTML, REFUSAL))
    save(world, home)
    shown(run, "job", "notify", NAME, *WHY)
    again = f"{world.ref.notification('cli-1')}told/0001.json"
    attempt = NotificationAttempt(number=1, at=world.clock())
    world.memory.objects = {again: attempt.model_dump_json().encode()}
    save(world, home)
    assert shown(run, "job", "purge", NAME, *WHY)["texts"] is None
    world.memory.objects = {
        again.replace("told/0001", "refused"): (home / "store" / f"{world.ref.work}refused.json").read_bytes()
    }
    save(world, home)
    assert shown(run, "job", "purge", NAME, *WHY)["texts"] > 0


def test_purge_asks_first(home: Path, run: Run, publishers: list[RememberingPublisher]) -> None:
    world = World()
    asyncio.run(done(world, answer=REFUSAL))
    save(world, home)
    assert run("job", "purge", NAME, "--reason", "INC-7", stdin="n\n").exit_code == 1
    assert publishers == []
    assert list(home.glob("store/**/*.csv*"))


def test_a_job_in_work_is_not_purged(home: Path, run: Run) -> None:
    save(half_done(), home)
    result = run("job", "purge", NAME, *WHY)
    assert result.exit_code == 1
    assert (
        result.stderr == f"error: job_undecided: {NAME} has no outcome yet; purge it when it is completed or failed\n"
    )


@pytest.mark.parametrize(("data", "topic"), [(CARDS, Topic.BATCH_UPLOADED), (HTML, Topic.BATCH_FAILED)])
def test_a_refused_callback_is_sent_again_with_the_same_body(
    home: Path, run: Run, publishers: list[RememberingPublisher], data: bytes, topic: Topic
) -> None:
    world = World()
    asyncio.run(done(world, data, REFUSAL))
    save(world, home)
    sent = shown(run, "job", "notify", NAME, *WHY)
    record, audited = publishers[0].published
    assert record.topic is topic
    assert json.loads(audited.value)["action"] == "callback.repeated"
    assert json.loads(record.value)["again"] == sent["again"]
    world.bus.published = [record]
    asyncio.run(world.deliver(world.confirm, world.records(topic)[0]))
    first, second = world.ecs.calls
    assert first == second
    assert "will be sent again" in run("job", "notify", NAME, *WHY).stdout


def test_a_callback_that_was_never_sent_is_not_sent_again(home: Path, run: Run) -> None:
    save(half_done(), home)
    result = run("job", "notify", NAME, *WHY)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: job_not_notified: ECS has not been notified of {NAME} yet; the confirm stage will do it\n"
    )


def test_a_confirmed_callback_is_not_sent_again(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(done(world))
    save(world, home)
    result = run("job", "notify", NAME, *WHY)
    assert result.exit_code == 1
    assert result.stderr == f"error: callback_confirmed: {NAME}: ECS has confirmed its outcome\n"
