"""`pipeline dead-letters`: what could not be handled, masked; replayed once for its group, or discarded."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from support.command_line import Kill, Killed, KillingPorts, RememberingPorts, RememberingPublisher, Run
from support.paths import ROOT

from pipeline.app import Ports
from pipeline.cli.root import cli
from pipeline.contracts import OutgoingRecord, Record, Topic, TopicName, first_values
from pipeline.errors import PermanentError
from pipeline.kafka import BrokerUnavailable, DeadLetters, KafkaSettings, RecordTooLarge
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics

CARD: Final = "4111111111111111"
GUID: Final = "cffde776-1d2a-4614-8023-a5148e411462"
AT: Final = datetime(2026, 1, 22, 12, tzinfo=UTC)
WHY: Final = ("--reason", "INC-7", "--yes")
ANNOUNCEMENT: Final = json.dumps(
    {
        "job_guid": GUID,
        "record_count": "two",
        "input_file_url": f"https://files.example.com/in.csv?X-Amz-Signature=planted{CARD}",
        "card": CARD,
    }
).encode()


def record(
    topic: TopicName = Topic.EVENTS_FEES,
    offset: int = 41,
    *,
    key: str = "acme/card/1",
    value: bytes = b'{"a": "planted"}',
) -> Record:
    """Return a record that a group could not handle."""
    headers = (("ce_id", f"id-{offset}".encode()), ("ce_type", b"weavr.unknown"), ("pipeline_integration", b"acme"))
    return Record(topic, 3, offset, key, value, headers, 1_769_083_200_000, attempt=5)


class DeadLetterTopics:
    """What the dead-letter topics hold.

    Attributes:
        gone: Topics that cannot be read.
        names: Topics of the cluster besides those with records.
    """

    def __init__(self) -> None:
        self.held: list[Record] = []
        self.gone: set[TopicName] = set()
        self.names: set[TopicName] = {Topic.BATCH_DEAD_LETTER, Topic.AUDIT_DEAD_LETTER, Topic.EVENTS_FEES}

    def put(
        self,
        one: Record,
        group: str = "billing",
        code: str = "handler_poison",
        *,
        at: datetime = AT,
        message: str = f"no account {CARD}",
        cut: bool = False,
    ) -> None:
        """Write a dead letter, as the group does."""

        async def refuse(record: OutgoingRecord) -> None:
            if cut and record.value:
                raise RecordTooLarge("record_too_large", "too large")

        publisher = MemoryPublisher(refuse)
        own = group in {"process", "upload", "confirm", "watch", "audit"}
        address = None if own else lambda _: f"{group}.dead-letter"
        letters = DeadLetters(publisher, group=group, metrics=Metrics(), clock=lambda: at, address=address)
        asyncio.run(letters.write(one, PermanentError(code, message)))
        (out,) = publisher.published
        self.held.append(Record(out.topic, 0, len(self.held), out.key, out.value, out.headers, 0))

    async def read(self, _: KafkaSettings, topic: TopicName) -> AsyncIterator[Record]:
        if topic in self.gone:
            raise BrokerUnavailable("broker_unavailable", f"{topic} cannot be read: there is no such topic.")
        for one in self.held:
            if one.topic == topic:
                yield one

    async def topics(self, _: KafkaSettings) -> list[TopicName]:
        return sorted((self.names | {one.topic for one in self.held}) - self.gone)


@pytest.fixture
def ports() -> Ports:
    return RememberingPorts()


@pytest.fixture
def letters(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadLetterTopics]:
    text = (home / "pipeline.toml").read_text()
    (home / "pipeline.toml").write_text(
        text.replace("[kafka]", '[kafka]\ntopics = { "card-events.login" = "our-login" }')
    )
    made = DeadLetterTopics()
    monkeypatch.setattr("pipeline.cli.kept_records.read_topic", made.read)
    monkeypatch.setattr("pipeline.cli.dead_letter_view.topic_names", made.topics)
    RememberingPublisher.made.clear()
    yield made
    RememberingPublisher.made.clear()


def published(*topics: TopicName) -> list[OutgoingRecord]:
    sent = [one for publisher in RememberingPublisher.made for one in publisher.published]
    return [one for one in sent if not topics or one.topic in topics]


def listed(run: Run, *arguments: str) -> list[dict[str, Any]]:
    result = run("dead-letters", "list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home / "store")) for path in home.glob("store/**/*.json"))


# list and show


def test_the_list_names_each_letter_once_and_the_oldest_first(run: Run, letters: DeadLetterTopics) -> None:
    """Of stages and of subscribers' groups; a letter that was written twice is one."""
    letters.put(record(), at=AT.replace(hour=13))
    letters.put(record(), at=AT.replace(hour=13))
    letters.put(record(Topic.BATCH_REQUESTED, 2, key=f"acme/{GUID}"), "watch", "announcement_invalid", message="x")
    rows = listed(run)
    assert [(row["group"], row["code"], row["state"]) for row in rows] == [
        ("watch", "announcement_invalid", "open"),
        ("billing", "handler_poison", "open"),
    ]
    assert rows[1] == {
        "id": rows[1]["id"],
        "at": "2026-01-22T13:00:00+00:00",
        "group": "billing",
        "topic": "card-events.fees",
        "partition": 3,
        "offset": 41,
        "integration": "acme",
        "key": "acme/card/1",
        "code": "handler_poison",
        "message": "no account [digits]",
        "attempts": 5,
        "state": "open",
    }
    table = run("dead-letters", "list").stdout.splitlines()
    assert (table[0], len(table)) == ("id\tat\tgroup\ttopic\tkey\tcode\tmessage\tstate", 3)


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [
        (("--group", "billing"), [1, 2]),
        (("--group", "process", "--group", "fraud"), [3, 4]),
        (("--topic", "card-events.fees"), [1]),
        (("--topic", "our-login"), [2, 4]),
        (("--code", "handler_poison", "--code", "integration_unknown"), [1, 3]),
        (("--integration", "acme"), [1, 2, 4]),
        (("--integration", "other"), [3]),
        (("--key", "acme/card/1"), [1, 2]),
        (("--since", "2026-01-22T13:00:00Z"), [2, 3, 4]),
        (("--since", "2026-01-22T13:00:00Z", "--until", "2026-01-22T15:00:00Z"), [2, 3]),
        (("--group", "billing", "--code", "attempts_exhausted"), [2]),
    ],
)
def test_filters(run: Run, letters: DeadLetterTopics, arguments: tuple[str, ...], offsets: list[int]) -> None:
    letters.put(record(offset=1))
    letters.put(record(Topic.EVENTS_LOGIN, 2), "billing", "attempts_exhausted", at=AT.replace(hour=13))
    job = replace(record(Topic.BATCH_PROCESSED, 3, key=f"other/{GUID}"), headers=())
    letters.put(job, "process", "integration_unknown", at=AT.replace(hour=14))
    letters.put(record(Topic.EVENTS_LOGIN, 4, key="acme/x"), "fraud", "event_unfit", at=AT.replace(hour=15))
    assert [row["offset"] for row in listed(run, *arguments)] == offsets


def test_show_masks_the_value_and_names_the_reason(run: Run, letters: DeadLetterTopics) -> None:
    """Of an announcement the known fields, as `quarantine show` does; the signature of a URL never."""
    letters.put(
        record(Topic.BATCH_REQUESTED, 2, key=f"acme/{GUID}", value=ANNOUNCEMENT), "process", "announcement_invalid"
    )
    letters.put(record(value=json.dumps({"card": CARD, "authToken": "planted"}).encode()))
    job, event = (run("dead-letters", "show", row["id"][:8]) for row in listed(run))
    assert (job.exit_code, event.exit_code) == (0, 0)
    shown = json.loads(job.stdout)
    assert shown["record"]["body"] == {
        "job_guid": GUID,
        "record_count": "(str, not shown)",
        "input_file_url": "https://files.example.com/in.csv",
        "other_fields": 1,
    }
    assert (shown["kept_in"], shown["mark"], shown["value_missing"]) == (
        {"topic": "card-batch.dead-letter", "partition": 0, "offset": 0},
        None,
        False,
    )
    assert json.loads(event.stdout)["record"]["body"] == {"card": "(text)", "authToken": "(text)"}
    for text in (job.output, event.output):
        assert CARD not in text
        assert "planted" not in text


@pytest.mark.parametrize(("item", "what"), [("zz", "no dead letter has"), ("", "2 dead letters have")])
@pytest.mark.parametrize("command", ["show", "replay", "discard"])
def test_an_id_must_mean_one(run: Run, letters: DeadLetterTopics, command: str, item: str, what: str) -> None:
    letters.put(record(offset=1))
    letters.put(record(offset=2))
    result = run("dead-letters", command, item, *(() if command == "show" else WHY))
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: dead_letter_unknown: {what} an id that begins with {item!r}\n",
    )
    assert published() == []


def test_a_foreign_record_and_an_unreadable_topic_are_warned_of(run: Run, letters: DeadLetterTopics) -> None:
    letters.put(record())
    letters.held.append(Record("orders.dead-letter", 1, 5, "k", CARD.encode(), (), 0))
    letters.gone.add(Topic.BATCH_DEAD_LETTER)
    result = run("dead-letters", "list", "--json")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == (
        "warning: card-batch.dead-letter cannot be read: there is no such topic.\n"
        "warning: orders.dead-letter, partition 1, offset 5: "
        "A dlq_* header of the dead letter is missing or malformed\n"
    )


@pytest.mark.parametrize(
    ("group", "topic", "kept_in"),
    [
        ("process", Topic.BATCH_REQUESTED, "billing.dead-letter"),
        ("process", Topic.BATCH_REQUESTED, "process.dead-letter"),
        ("audit", Topic.AUDIT_EVENTS, "billing.stepup.dead-letter"),
        ("ledger", Topic.EVENTS_FEES, "billing.dead-letter"),
        ("ledger", Topic.EVENTS_FEES, Topic.BATCH_DEAD_LETTER),
        ("process", Topic.AUDIT_EVENTS, Topic.BATCH_DEAD_LETTER),
    ],
)
def test_a_letter_in_the_topic_of_another_group_is_not_replayed(
    run: Run, letters: DeadLetterTopics, group: str, topic: Topic, kept_in: str
) -> None:
    """A user who may write to one dead-letter topic must not make us publish records to our own topics."""
    letters.put(record(topic, key=f"acme/{GUID}", value=ANNOUNCEMENT), group)
    letters.held[0] = replace(letters.held[0], topic=kept_in)
    result = run("dead-letters", "replay", "--code", "handler_poison", *WHY)
    assert (result.exit_code, published(topic, Topic.AUDIT_EVENTS)) == (0, [])
    assert (
        f"warning: {kept_in}, partition 0, offset 0: The dead letter is not in the topic of the group that it names\n"
        in (result.stderr)
    )


def test_a_group_without_a_dead_letter_topic_is_named(run: Run, letters: DeadLetterTopics) -> None:
    letters.put(record())
    for group in ("nobody", "no group/name"):
        result = run("dead-letters", "list", "--group", group)
        assert (result.exit_code, result.stderr.split(": ")[1]) == (1, "dead_letters_absent")


# replay


def test_a_replay_is_a_dry_run_unless_yes_is_given(home: Path, run: Run, letters: DeadLetterTopics) -> None:
    letters.put(record())
    for arguments in ((), ("--dry-run", *WHY)):
        result = run("dead-letters", "replay", "--group", "billing", *arguments)
        assert result.exit_code == 0
        assert result.stdout.endswith("  billing  card-events.fees  acme/card/1  handler_poison: would be replayed\n")
        assert result.stderr == "1 dead letters would be replayed (dry run, nothing changed; add --yes to do it)\n"
    assert (published(), files(home)) == ([], [])


def test_a_replay_goes_to_its_topic_for_its_group_and_is_audited(run: Run, letters: DeadLetterTopics) -> None:
    letters.put(record())
    letters.put(record(Topic.BATCH_PROCESSED, 2, key=f"acme/{GUID}"), "upload", "receipt_missing")
    result = run("dead-letters", "replay", "--integration", "acme", *WHY, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["replayed"], line["problem"], line["group"]) for line in lines] == [
        (True, None, "upload"),
        (True, None, "billing"),
    ]
    job, event = published(Topic.EVENTS_FEES, Topic.BATCH_PROCESSED)
    assert (event.key, event.value) == (record().key, record().value)
    known = first_values(event.headers)
    assert (known["replay_group"], known["replayed_from"]) == ("billing", "billing.dead-letter/0/0")
    assert not any(name.startswith("dlq_") for name in known)
    assert first_values(job.headers)["replay_group"] == "upload"
    audits = [json.loads(one.value) for one in published(Topic.AUDIT_EVENTS)]
    assert [(one["action"], one["integration"], one["job_guid"]) for one in audits] == [
        ("dead_letter.replayed", "acme", GUID),
        ("dead_letter.replayed", "acme", None),
    ]
    assert audits[1]["detail"] == {
        "dead_letter": lines[1]["id"],
        "group": "billing",
        "code": "handler_poison",
        "topic": "card-events.fees",
        "partition": 3,
        "offset": 41,
        "command": lines[1]["command"],
        "reason": "INC-7",
    }


def test_the_same_command_replays_nothing_twice(run: Run, letters: DeadLetterTopics) -> None:
    """A replayed letter leaves the list. If its record fails again, that is another letter."""
    letters.put(record(offset=1))
    letters.put(record(offset=2))
    arguments = ("dead-letters", "replay", "--code", "handler_poison", *WHY)
    assert run(*arguments, "--limit", "1").stderr.splitlines()[1:] == [
        "warning: stopped at --limit; more dead letters match, so give the command again",
        "1 dead letters replayed",
    ]
    assert run(*arguments).stderr.splitlines()[1:] == ["1 dead letters replayed"]
    assert run(*arguments).stderr.splitlines()[1:] == ["0 dead letters replayed"]
    assert [first_values(one.headers)["ce_id"] for one in published(Topic.EVENTS_FEES)] == ["id-1", "id-2"]
    assert listed(run) == []
    assert [row["state"] for row in listed(run, "--all")] == ["replayed", "replayed"]
    shown = json.loads(run("dead-letters", "show", listed(run, "--all")[0]["id"]).stdout)
    assert (shown["state"], shown["mark"]["reason"]) == ("replayed", "INC-7")
    letters.put(record(offset=9))
    assert [row["offset"] for row in listed(run)] == [9]


def test_what_cannot_be_replayed_is_named_and_the_rest_goes_on(run: Run, letters: DeadLetterTopics) -> None:
    letters.put(record(offset=1), cut=True)
    letters.put(record(offset=2))
    for arguments in ((), WHY):
        result = run("dead-letters", "replay", "--group", "billing", *arguments)
        assert result.exit_code == 1
        assert "dead_letter_cut: The record was too large" in result.stdout.splitlines()[0]
        assert result.stdout.splitlines()[1].endswith("replayed")
    assert [row["offset"] for row in listed(run)] == [1]
    assert run("dead-letters", "discard", "--group", "billing", *WHY).exit_code == 0
    assert listed(run) == []


def test_the_rate_is_kept(run: Run, letters: DeadLetterTopics) -> None:
    for offset in range(4):
        letters.put(record(offset=offset))
    began = time.monotonic()
    assert run("dead-letters", "replay", "--group", "billing", "--rate", "20", *WHY).exit_code == 0
    assert time.monotonic() - began >= 0.15
    assert len(published(Topic.EVENTS_FEES)) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("replay", *WHY), "dead_letters_which"),
        (("discard", *WHY), "dead_letters_which"),
        (("replay", "--group", "billing", "--yes"), "reason_missing"),
    ],
)
def test_what_is_not_said_is_asked_for(
    home: Path, run: Run, letters: DeadLetterTopics, arguments: tuple[str, ...], code: str
) -> None:
    letters.put(record())
    result = run("dead-letters", *arguments)
    assert (result.exit_code, result.stderr.split(": ")[1]) == (2, code)
    assert (published(), files(home)) == ([], [])


def test_an_integration_of_no_legal_name_stays_out_of_the_audit_log(run: Run, letters: DeadLetterTopics) -> None:
    one = replace(record(), headers=(("pipeline_integration", f"No Name {CARD}".encode()),))
    letters.put(one)
    assert run("dead-letters", "replay", "--group", "billing", *WHY).exit_code == 0
    (audit,) = published(Topic.AUDIT_EVENTS)
    assert json.loads(audit.value)["integration"] is None
    assert CARD.encode() not in audit.value


# discard


def test_what_is_discarded_leaves_the_list_and_is_audited(run: Run, letters: DeadLetterTopics) -> None:
    letters.put(record(offset=1))
    letters.put(record(offset=2))
    first = listed(run)[0]["id"]
    assert run("dead-letters", "discard", first).stderr.startswith("1 dead letters would be discarded (dry run")
    assert len(listed(run)) == 2
    result = run("dead-letters", "discard", first, *WHY, "--json")
    assert json.loads(result.stdout)["discarded"] is True
    assert [row["offset"] for row in listed(run)] == [2]
    assert [row["state"] for row in listed(run, "--all")] == ["discarded", "open"]
    (audit,) = published()
    assert (audit.topic, json.loads(audit.value)["action"]) == (Topic.AUDIT_EVENTS, "dead_letter.discarded")
    run("dead-letters", "replay", "--group", "billing", *WHY)
    assert [first_values(one.headers)["ce_id"] for one in published(Topic.EVENTS_FEES)] == ["id-2"]


# interrupted


@pytest.mark.parametrize("command", ["replay", "discard"])
def test_a_command_that_was_killed_anywhere_is_completed_by_its_id(
    tmp_path_factory: pytest.TempPathFactory,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    letters: DeadLetterTopics,
    command: str,
) -> None:
    """Every letter is settled then, and one at most was published twice."""
    for offset in range(3):
        letters.put(record(offset=offset))
    arguments = ("dead-letters", command, "--group", "billing")
    whole, wanted = _killed(home, arguments, Kill())
    assert "after:store.dead-letter" in whole.points
    for at, point in enumerate(whole.points):
        folder = tmp_path_factory.mktemp("killed")
        for name in ("pipeline.toml", "webhook", "token"):
            shutil.copy(home / name, folder / name)
        monkeypatch.chdir(folder)
        assert _killed(folder, arguments, Kill(at))[1] == wanted, point
        assert len(published(Topic.EVENTS_FEES)) <= (4 if command == "replay" else 0)


def _killed(home: Path, arguments: Sequence[str], kill: Kill) -> tuple[Kill, object]:
    RememberingPublisher.made.clear()
    first = CliRunner().invoke(cli, [*arguments, *WHY], prog_name="pipeline", obj=KillingPorts(kill))
    if kill.at < 0:
        assert first.exit_code == 0, first.output
    else:
        assert isinstance(first.exception, Killed)
        repeat = [f"--id={file.stem}" for file in home.glob("store/commands/*.json")]
        second = CliRunner().invoke(cli, [*arguments, *WHY, *repeat], prog_name="pipeline", obj=RememberingPorts())
        assert second.exit_code == 0, second.output
    sent = {(one.topic, one.key, first_values(one.headers)["ce_type"]) for one in published()}
    audited = [first_values(one.headers)["ce_id"] for one in published(Topic.AUDIT_EVENTS)]
    marks = [name for name in files(home) if name.startswith("dead-letters/")]
    return kill, (sent, len(set(audited)), marks)


# the runbook


def test_the_commands_of_the_runbook_work(run: Run, letters: DeadLetterTopics) -> None:
    """In the order of the page, with the values of this world."""
    letters.put(record(offset=1), "billing", "attempts_exhausted")
    letters.put(record(offset=2), "billing", "handler_poison")
    job = record(Topic.BATCH_PROCESSED, 3, key=f"acme/{GUID}")
    letters.put(job, "upload", "receipt_missing", at=AT.replace(hour=13))
    page = (ROOT / "docs" / "how-to" / "runbook.md").read_text("utf-8")
    (section,) = re.findall(r"\n## A dead letter\n(.*?)\n## ", page, re.DOTALL)
    commands = re.findall(r"^      pipeline (dead-letters .*)$", section, re.MULTILINE)
    assert {command.split()[1] for command in commands} == {"list", "show", "replay", "discard"}
    for command in commands:
        ids = [row["id"] for row in listed(run)]
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        result = run(*(ids[0] if word == "ID" else "billing" if word == "GROUP" else word for word in words))
        assert result.exit_code == 0, (command, result.output)
    assert [row["code"] for row in listed(run)] == ["receipt_missing"]
