"""`pipeline topics`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from support.command_line import RememberingPorts, RememberingPublisher, Run

from pipeline.app import Ports
from pipeline.contracts import SPECS, TOPICS, Topic, TopicSpec
from pipeline.kafka import BrokerUnavailable, KafkaSettings, Partition
from pipeline.kafka.admin import TopicFinding, TopicResult
from pipeline.kafka.groups import Skip


@pytest.fixture
def ports() -> Ports:
    return RememberingPorts()


ECS_ONLY = tuple(spec for spec in TOPICS if spec.topic.startswith(("card-batch.", "audit.")))


def checked(*findings: TopicFinding) -> Callable[[KafkaSettings, Sequence[TopicSpec]], Awaitable[list[TopicFinding]]]:
    async def check(_: KafkaSettings, specs: Sequence[TopicSpec]) -> list[TopicFinding]:
        assert specs == ECS_ONLY
        return list(findings)

    return check


MORE = TopicFinding("card-batch.requested", "partitions", "12", "24", breaks=False)
GONE = TopicFinding("audit.events", "missing", "the topic", "nothing", breaks=True)


def test_create_says_what_was_done(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    del home

    async def create(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> list[TopicResult]:
        assert specs == ECS_ONLY
        assert settings.bootstrap_servers == "127.0.0.1:1"
        return [TopicResult("a", created=True), TopicResult("b", created=False)]

    monkeypatch.setattr("pipeline.cli.topics.create_topics", create)
    assert run("topics", "create").stdout == "topic\tcreated\na\tyes\nb\texists\n"
    assert json.loads(run("topics", "create", "--json").stdout) == [
        {"name": "a", "created": True, "findings": []},
        {"name": "b", "created": False, "findings": []},
    ]


def test_create_ends_with_1_if_a_topic_that_existed_breaks_a_promise(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that creates topics on first use makes them with its own defaults; the remedy is named."""
    del home
    few = TopicFinding("b", "partitions", "12", "4", breaks=True)
    short = TopicFinding("b", "retention.ms", "259200000", "1000", breaks=True)
    more = TopicFinding("c", "partitions", "12", "24", breaks=False)

    async def create(_settings: KafkaSettings, _specs: Sequence[TopicSpec]) -> list[TopicResult]:
        return [
            TopicResult("a", created=True),
            TopicResult("b", created=False, findings=(few, short)),
            TopicResult("c", created=False, findings=(more,)),
        ]

    monkeypatch.setattr("pipeline.cli.topics.create_topics", create)
    result = run("topics", "create")
    assert (result.exit_code, result.stdout) == (1, "topic\tcreated\na\tyes\nb\texists\nc\texists\n")
    first, second = result.stderr.splitlines()
    assert first.startswith("b: partitions is 4, and must be 12: if it has no record yet: delete it")
    assert "kafka-topics.sh --alter --topic b --partitions 12" in first
    assert second == (
        "b: retention.ms is 1000, and must be 259200000: kafka-configs.sh --alter --entity-type topics --entity-name b "
        "--add-config retention.ms=259200000"
    )
    found = json.loads(run("topics", "create", "--json").stdout)
    assert [one["remedy"] for one in found[1]["findings"]] == [few.remedy, short.remedy]
    assert found[2]["findings"][0]["breaks"] is False


@pytest.mark.parametrize(
    ("findings", "code", "output"),
    [
        ((), 0, "ok: all topics are correct\n"),
        ((MORE,), 0, "topic\trule\texpected\tfound\tbreaks a promise\ncard-batch.requested\tpartitions\t12\t24\tno\n"),
        (
            (GONE,),
            1,
            "topic\trule\texpected\tfound\tbreaks a promise\naudit.events\tmissing\tthe topic\tnothing\tyes\n",
        ),
    ],
)
def test_check_ends_with_1_if_a_promise_breaks(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, *, findings: tuple[TopicFinding, ...], code: int, output: str
) -> None:
    del home
    monkeypatch.setattr("pipeline.cli.topics.check_topics", checked(*findings))
    result = run("topics", "check")
    assert (result.exit_code, result.stdout) == (code, output)
    document = json.loads(run("topics", "check", "--json").stdout)
    assert document["ok"] is (code == 0)
    assert [one["name"] for one in document["findings"]] == [one.name for one in findings]


GITHUB = """\
[kafka]
bootstrap_servers = "127.0.0.1:1"
[webhooks.hub]
preset = "github"
secrets = [{ file = "s" }]
"""
ONLY_KAFKA = '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n'


@pytest.mark.parametrize(
    ("settings", "option", "expected"),
    [
        (GITHUB, (), ["webhook-events.quarantine", "audit.events", "audit.dead-letter", "webhook-events.hub"]),
        (GITHUB, ("--all",), [*(str(spec.topic) for spec in TOPICS), "webhook-events.hub"]),
        (ONLY_KAFKA, (), [str(spec.topic) for spec in TOPICS]),
    ],
)
@pytest.mark.parametrize("command", ["create", "check"])
def test_only_topics_of_configured_sources_are_asked_for(
    empty: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    *,
    command: str,
    settings: str,
    option: tuple[str, ...],
    expected: list[str],
) -> None:
    """All of them with --all, or if the settings name no source."""
    (empty / "pipeline.toml").write_text(settings)
    asked: list[str] = []

    async def ask(_: KafkaSettings, specs: Sequence[TopicSpec]) -> list[TopicResult]:
        asked.extend(str(spec.topic) for spec in specs)
        return []

    monkeypatch.setattr(f"pipeline.cli.topics.{command}_topics", ask)
    assert run("topics", command, *option).exit_code == 0
    assert asked == expected


def test_a_broker_that_is_away_is_exit_4(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    del home

    async def create(_: KafkaSettings, _specs: Sequence[TopicSpec]) -> list[TopicResult]:
        raise BrokerUnavailable("broker_unavailable", "No answer about topics.")

    monkeypatch.setattr("pipeline.cli.topics.create_topics", create)
    result = run("topics", "create")
    assert (result.exit_code, result.stderr) == (4, "error: broker_unavailable: No answer about topics.\n")


def test_without_a_cluster_the_setting_is_named(empty: Path, run: Run) -> None:
    del empty
    result = run("topics", "create")
    assert result.exit_code == 2
    assert result.stderr == (
        'error: config_invalid: kafka: is missing; write [kafka] with e.g. bootstrap_servers = "kafka-0:9092"\n'
    )


def test_export_prints_every_topic_by_the_clusters_names(home: Path, run: Run) -> None:
    with (home / "pipeline.toml").open("a") as file:
        file.write('[kafka.topics]\n"audit.events" = "trail"\n')
    exported = json.loads(run("topics", "export", "--format", "json").stdout)
    names = {one["logical"]: one["name"] for one in exported}
    assert set(names) == {str(spec.topic) for spec in TOPICS}
    assert names["audit.events"] == "trail"


def test_export_works_without_a_cluster(empty: Path, run: Run) -> None:
    del empty
    exported = json.loads(run("topics", "export").stdout)
    assert [one["name"] for one in exported] == [str(spec.topic) for spec in TOPICS]


def test_topics_of_configured_sources_are_topics_too(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have their own partitions and retention."""
    with (home / "pipeline.toml").open("a") as file:
        file.write(
            '[webhooks.shop]\npreset = "shopify"\nsecrets = [{ file = "s" }]\npartitions = 5\nretention_days = 0.5\n'
        )
    created: list[TopicSpec] = []

    async def create(_: KafkaSettings, specs: Sequence[TopicSpec]) -> list[TopicResult]:
        created.extend(specs)
        return []

    monkeypatch.setattr("pipeline.cli.topics.create_topics", create)
    run("topics", "create")
    spec = created[-1]
    assert created[:-1] == [*ECS_ONLY[:-2], SPECS[Topic.WEBHOOK_QUARANTINE], *ECS_ONLY[-2:]]
    assert (spec.topic, spec.partitions, spec.retention_ms) == ("webhook-events.shop", 5, 43_200_000)
    exported = {one["logical"]: one for one in json.loads(run("topics", "export").stdout)}
    assert exported["webhook-events.shop"]["partitions"] == 5


def test_a_subscribers_dead_letter_topics_are_among_them_where_its_group_is_named(empty: Path, run: Run) -> None:
    del empty
    exported = json.loads(run("topics", "export", "--group", "fraud", "--group", "ledger").stdout)
    added = {one["name"]: one["configs"]["retention.ms"] for one in exported[len(TOPICS) :]}
    assert added == {
        "fraud.dead-letter": "604800000",
        "fraud.stepup.dead-letter": "900000",
        "ledger.dead-letter": "604800000",
        "ledger.stepup.dead-letter": "900000",
    }


def test_a_group_whose_dead_letters_would_be_ours_is_refused(empty: Path, run: Run) -> None:
    del empty
    result = run("topics", "export", "--group", "card-batch")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: group_refused: --group: the group 'card-batch' would have the dead-letter topic of another: "
        "choose another name\n"
    )


# skip


SKIP = ("topics", "skip", "--group", "process", "--topic", "card-batch.requested", "--partition", "3", "--offset", "7")
FOUND = Skip("card-pipeline.process", "card-batch.requested", 3, 7, 9, skipped=2, why="Unknown compression codec 0x05")


class Skipping:
    """Remembers what was asked of the cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planned: list[tuple[str, Partition, int]] = []
        self.done: list[tuple[str, Partition, int, str]] = []
        monkeypatch.setattr("pipeline.cli.topics.plan_skip", self._plan)
        monkeypatch.setattr("pipeline.cli.topics.skip", self._skip)

    async def _plan(self, _: KafkaSettings, group: str, partition: Partition, offset: int) -> Skip:
        self.planned.append((group, partition, offset))
        return FOUND

    async def _skip(self, _: KafkaSettings, group: str, partition: Partition, offset: int, *, reason: str) -> Skip:
        self.done.append((group, partition, offset, reason))
        return FOUND


@pytest.fixture
def skipping(home: Path, monkeypatch: pytest.MonkeyPatch) -> Skipping:
    del home
    return Skipping(monkeypatch)


def test_a_skip_is_a_dry_run_first(run: Run, skipping: Skipping) -> None:
    result = run(*SKIP)
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "topic\tpartition\tcommitted\tbecomes\tskipped\twhy",
            "card-batch.requested\t3\t7\t9\t2\tUnknown compression codec 0x05",
        ],
    )
    assert result.stderr == (
        "card-pipeline.process: 2 offsets skipped (dry run, nothing changed; add --execute to do it)\n"
    )
    assert (skipping.planned, skipping.done) == ([("process", Partition("card-batch.requested", 3), 7)], [])


def test_a_skip_takes_the_name_of_the_topic_in_the_cluster(home: Path, run: Run, skipping: Skipping) -> None:
    text = (home / "pipeline.toml").read_text().replace("[kafka]\n", '[kafka]\ntopic_prefix = "acme."\n')
    (home / "pipeline.toml").write_text(text)
    for name in ("acme.card-batch.requested", "card-batch.requested"):
        assert run(*(name if word == "card-batch.requested" else word for word in SKIP)).exit_code == 0
    assert skipping.planned == [("process", Partition("card-batch.requested", 3), 7)] * 2


def test_a_skip_is_executed_with_a_reason_only_and_is_audited(home: Path, run: Run, skipping: Skipping) -> None:
    refused = run(*SKIP, "--reason", " ", "--execute")
    assert (refused.exit_code, refused.stderr[: len("error: reason_missing")]) == (2, "error: reason_missing")
    assert skipping.done == []
    result = run(*SKIP, "--reason", "INC-7", "--execute", "--json")
    assert json.loads(result.stdout) == {
        "executed": True,
        "reason": "INC-7",
        "group": "card-pipeline.process",
        "topic": "card-batch.requested",
        "partition": 3,
        "committed": 7,
        "becomes": 9,
        "skipped": 2,
        "why": "Unknown compression codec 0x05",
    }
    assert skipping.done == [("process", Partition("card-batch.requested", 3), 7, "INC-7")]
    (receipt,) = home.glob("store/commands/*.json")
    (audited,) = RememberingPublisher.made[-1].published
    assert json.loads(receipt.read_text())["command"] == "topics skip"
    event = json.loads(audited.value)
    assert (event["action"], event["actor"][:4], event["detail"]["reason"]) == ("batch.skipped", "cli:", "INC-7")
    assert (event["detail"]["offset"], event["detail"]["next_offset"]) == (7, 9)
