"""`pipeline events`: records as they come, masked; groups moved after a look."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run

from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, SPECS, EventHeaders, Headers, Record, Topic, TopicName
from pipeline.kafka import GroupBusy, KafkaSettings, Point
from pipeline.kafka.groups import Move, Rewind

PLANTED = "planted-value"
AT = datetime(2026, 1, 22, 22, 43, 59, tzinfo=UTC)


def record(
    *,
    topic: TopicName = Topic.EVENTS_MANAGED_CARDS,
    offset: int = 0,
    kind: str = "weavr.managed_cards.authorisations",
    subject: str = "card/1234",
    body: bytes = b"{}",
    extra: Headers = (),
) -> Record:
    headers = EventHeaders(
        id=f"id-{offset}",
        source="/webhooks/weavr/acme",
        type=kind,
        subject=subject,
        time=AT,
        partition_key=f"acme/{subject}",
    )
    named = ((INTEGRATION_HEADER, b"acme"), (PATH_HEADER, b"/managed_cards/authorisations/watch"), *extra)
    return Record(topic, 3, offset, f"acme/{subject}", body, headers.encode(named), round(AT.timestamp() * 1000))


class Topics:
    """What the topics hold, and how they were asked for.

    Attributes:
        records: What is read.
        gone: Topics that are not there.
        asked: Topics, beginning, and whether to follow, of the last reading.
        closed: Whether the last reading was closed.
        error: What reading ends by.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.gone: set[TopicName] = set()
        self.asked: tuple[list[TopicName], Point, bool] | None = None
        self.closed = False
        self.error: BaseException | None = None

    async def read(
        self,
        settings: KafkaSettings,
        topics: Sequence[TopicName],
        *,
        since: Point,
        follow: bool,
        missing: Callable[[TopicName], object],
    ) -> AsyncGenerator[Record, None]:
        assert settings.bootstrap_servers == "127.0.0.1:1"
        self.asked = (list(topics), since, follow)
        for topic in topics:
            if topic in self.gone:
                missing(topic)
        try:
            for one in self.records:
                yield one
            if self.error:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture
def topics(home: Path, monkeypatch: pytest.MonkeyPatch) -> Topics:
    """Topics in memory, and settings that lead there."""
    del home
    made = Topics()
    monkeypatch.setattr("pipeline.cli.events.read_on", made.read)
    return made


def lines(run: Run, *arguments: str) -> list[dict[str, Any]]:
    result = run("events", "tail", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# tail


def test_a_record_shows_position_attributes_and_key(run: Run, topics: Topics) -> None:
    topics.records = [record(body=b'{"id": {"id": "1"}}')]
    [shown] = lines(run)
    assert {name: value for name, value in shown.items() if name != "body"} == {
        "topic": "card-events.managed-cards",
        "partition": 3,
        "offset": 0,
        "at": "2026-01-22T22:43:59.000+00:00",
        "key": "acme/card/1234",
        "ce_specversion": "1.0",
        "ce_id": "id-0",
        "ce_source": "/webhooks/weavr/acme",
        "ce_type": "weavr.managed_cards.authorisations",
        "ce_subject": "card/1234",
        "ce_time": "2026-01-22T22:43:59Z",
        "ce_partitionkey": "acme/card/1234",
        "integration": "acme",
        "path": "/managed_cards/authorisations/watch",
        "content_type": "application/json",
        "bytes": 19,
    }


def test_people_get_two_lines_that_cannot_steer_their_terminal(run: Run, topics: Topics) -> None:
    topics.records = [record(kind="github.push", subject="push/\x1b[2J", body=b'{"a": null}')]
    assert run("events", "tail").stdout.splitlines() == [
        (
            "2026-01-22T22:43:59.000+00:00  card-events.managed-cards/3/0  type=github.push  "
            "subject=push/\\x1b[2J  key=acme/push/\\x1b[2J"
        ),
        '    {"a": null}',
    ]


@pytest.mark.parametrize(("at_ms", "year"), [(-1, "1970"), (10**18, "9999")])
def test_a_record_time_that_no_calendar_has_does_no_harm(run: Run, topics: Topics, at_ms: int, year: str) -> None:
    """A producer sets a record's time: one record with a wrong time must not hide all that come after it."""
    topics.records = [replace(record(), timestamp_ms=at_ms), record(offset=1)]
    first, second = run("events", "tail", "--json").stdout.splitlines()
    assert json.loads(first)["at"].startswith(year)
    assert json.loads(second)["offset"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"authToken": "planted-value", "emailAddress": "planted-value"}',
        b'{"unknown": {"deeper": ["planted-value"]}}',
        b'{"planted-value@example.com": 1}',
        b'"planted-value"',
        b"planted-value",
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
@pytest.mark.parametrize("kind", ["weavr.stepup", "hmac.event"])
def test_no_value_of_a_body_is_shown_that_nobody_knows_to_be_harmless(
    run: Run, topics: Topics, body: bytes, kind: str
) -> None:
    topics.records = [record(body=body, kind=kind, extra=(("signature-v2", PLANTED.encode()),))]
    for arguments in (["--json"], []):
        result = run("events", "tail", *arguments)
        assert result.exit_code == 0
        assert PLANTED not in result.output


def test_of_our_own_announcements_the_texts_are_shown_masked(run: Run, topics: Topics) -> None:
    topics.records = [
        record(
            topic=Topic.BATCH_FAILED,
            kind="card-batch.failed",
            body=b'{"reason": "expired", "records": 3, "detail": ["card 4111111111111111"], "token": "planted-value"}',
        )
    ]
    [shown] = lines(run, "--topic", "card-batch.failed")
    assert shown["body"] == {"reason": "expired", "records": 3, "detail": ["card [digits]"], "token": "[masked]"}


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [
        ((), [0, 1, 2]),
        (("--type", "weavr.managed_cards.authorisations"), [0]),
        (("--type", "weavr.managed_cards.*"), [0, 1]),
        (("--type", "weavr.managed_cards.authorisations", "--type", "github.push"), [0, 2]),
        (("--key", "acme/card/1"), [0, 2]),
        (("--subject", "card/2"), [1]),
        (("--integration", "acme"), [0, 1, 2]),
        (("--integration", "other"), []),
        (("--subject", "card/1", "--type", "weavr.*"), [0]),
    ],
)
def test_filters_all_hold(run: Run, topics: Topics, arguments: tuple[str, ...], offsets: list[int]) -> None:
    topics.records = [
        record(subject="card/1"),
        record(subject="card/2", offset=1, kind="weavr.managed_cards.settlements"),
        record(subject="card/1", offset=2, kind="github.push"),
    ]
    assert [shown["offset"] for shown in lines(run, *arguments)] == offsets


def test_count_counts_what_is_printed_and_ends_the_reading(run: Run, topics: Topics) -> None:
    topics.records = [record(offset=number, subject=f"card/{number % 2}") for number in range(9)]
    assert [shown["offset"] for shown in lines(run, "--subject", "card/1", "--count", "2")] == [1, 3]
    assert topics.closed


def test_without_a_name_all_open_topics_are_read(run: Run, topics: Topics) -> None:
    """It does not read step-ups and quarantines."""
    lines(run)
    assert topics.asked is not None
    assert topics.asked[0] == [
        topic for topic in Topic if topic.startswith("card-events.") and not SPECS[topic].sensitive
    ]
    assert Topic.EVENTS_STEPUP not in topics.asked[0]


def test_topics_of_configured_sources_are_open_too(run: Run, topics: Topics, home: Path) -> None:
    with (home / "pipeline.toml").open("a") as file:
        file.write(
            '[webhooks.shop]\nsource = "hmac"\nsecrets = [{ file = "webhook" }]\ntopic = "webhook-events.sales"\n'
        )
    lines(run)
    assert topics.asked is not None
    assert topics.asked[0][-1] == "webhook-events.sales"


def test_topics_are_named_by_category_or_in_full(run: Run, topics: Topics) -> None:
    names = ("managed_cards", "managed-cards", "stepup", "webhook-events.shop", "billing.dead-letter", "audit.events")
    lines(run, *[word for name in names for word in ("--topic", name)])
    assert topics.asked is not None
    assert topics.asked[0] == [
        "card-events.managed-cards",
        "card-events.stepup",
        "webhook-events.shop",
        "billing.dead-letter",
        "audit.events",
    ]


@pytest.mark.parametrize("kafka", ["", 'topic_prefix = "acme."', 'topics = { "audit.events" = "our-audit" }'])
def test_each_name_of_topics_export_can_be_read(run: Run, topics: Topics, home: Path, kafka: str) -> None:
    """Both the name in the cluster and the name without its prefix work."""
    text = (home / "pipeline.toml").read_text().replace("[kafka]\n", f"[kafka]\n{kafka}\n")
    source = '[webhooks.shop]\nsource = "hmac"\nsecrets = [{ file = "webhook" }]\n'
    (home / "pipeline.toml").write_text(text + source)
    exported = json.loads(run("topics", "export", "--group", "billing").stdout)
    assert {"billing.dead-letter", "webhook-events.shop"} <= {one["logical"] for one in exported}
    for one in exported:
        for name in (one["name"], one["logical"]):
            lines(run, "--topic", name)
            assert topics.asked is not None
            assert topics.asked[0] == [one["logical"]]


def test_a_dead_letter_says_why_it_is_one(run: Run, topics: Topics) -> None:
    why = (("dlq_code", b"handler_poison"), ("dlq_message", b"no such card 4111111111111111"), ("dlq_offset", b"17"))
    topics.records = [record(topic="fraud.dead-letter", extra=why)]
    [shown] = lines(run, "--topic", "fraud.dead-letter")
    assert (shown["dlq_code"], shown["dlq_message"], shown["dlq_offset"]) == (
        "handler_poison",
        "no such card [digits]",
        "17",
    )
    printed = run("events", "tail", "--topic", "fraud.dead-letter").stdout.splitlines()[0]
    assert printed.endswith("dlq_code=handler_poison  dlq_message=no such card [digits]")


def test_a_name_that_means_nothing_is_refused_with_those_that_do(run: Run, topics: Topics) -> None:
    result = run("events", "tail", "--topic", "card-events.cards")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: topic_name: 'card-events.cards' is not a topic")
    assert "managed-cards" in result.stderr
    assert topics.asked is None


@pytest.mark.parametrize("weavr", [False, True])
def test_without_weavr_its_topics_are_not_looked_for(run: Run, topics: Topics, *, weavr: bool) -> None:
    """An installation with webhooks of GitHub alone gets no warning about 17 missing topics."""
    table = '[weavr.acme]\nsecrets = [{ file = "webhook" }]\n' if weavr else ""
    with Path("pipeline.toml").open("a") as file:
        file.write(f'[webhooks.hub]\npreset = "github"\nsecrets = [{{ file = "webhook" }}]\n{table}')
    assert run("events", "tail").exit_code == 0
    assert topics.asked is not None
    assert topics.asked[0][-1] == "webhook-events.hub"
    assert len(topics.asked[0]) == (18 if weavr else 1)


def test_a_missing_topic_is_an_error_only_where_it_was_named(run: Run, topics: Topics) -> None:
    topics.gone = {Topic.EVENTS_LOGIN}
    result = run("events", "tail")
    assert (result.exit_code, result.stderr) == (0, "warning: this cluster has no topic card-events.login\n")
    result = run("events", "tail", "--topic", "login")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: topic_unknown: this cluster has no topic card-events.login\n",
    )


@pytest.mark.parametrize(
    ("arguments", "since", "follow"),
    [
        ((), "latest", True),
        (("--no-follow",), "earliest", False),
        (("--since", "2026-01-22T22:43:59Z"), AT, True),
        (("--since", "2026-01-22T22:43:59Z", "--no-follow"), AT, False),
    ],
)
def test_reading_begins_now_or_at_a_time(
    run: Run, topics: Topics, arguments: tuple[str, ...], since: Point, *, follow: bool
) -> None:
    lines(run, *arguments)
    assert topics.asked is not None
    assert topics.asked[1:] == (since, follow)


def test_ctrl_c_is_exit_130(run: Run, topics: Topics) -> None:
    topics.error = KeyboardInterrupt()
    assert run("events", "tail").exit_code == 130


# rewind


MOVES = (Move("card-events.login", 0, 7, 3, again=4, skipped=0), Move("card-events.login", 1, None, 3, 0, 0))


class Group:
    """Remembers how it was moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planned: list[tuple[str, Point, list[TopicName]]] = []
        self.moved: list[tuple[str, Point, list[TopicName]]] = []
        self.error: Exception | None = None
        monkeypatch.setattr("pipeline.cli.events.plan_rewind", self._taking(self.planned))
        monkeypatch.setattr("pipeline.cli.events.rewind", self._taking(self.moved))

    def _taking(self, calls: list[tuple[str, Point, list[TopicName]]]) -> Callable[..., Any]:
        async def take(_: KafkaSettings, group: str, to: Point, *, topics: Sequence[TopicName]) -> Rewind:
            calls.append((group, to, list(topics)))
            if self.error:
                raise self.error
            return Rewind(group, MOVES)

        return take


@pytest.fixture
def group(home: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    """The only group of the cluster."""
    del home
    return Group(monkeypatch)


def test_a_rewind_is_a_dry_run_first(run: Run, group: Group) -> None:
    result = run("events", "rewind", "--group", "billing", "--to", "2026-01-22T22:43:59Z")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "topic\tpartition\tcommitted\tbecomes\tagain\tskipped",
            "card-events.login\t0\t7\t3\t4\t0",
            "card-events.login\t1\t-\t3\t0\t0",
        ],
    )
    assert result.stderr == "billing: 4 records again, 0 skipped (dry run, nothing changed; add --execute to do it)\n"
    assert (group.planned, group.moved) == ([("billing", AT, [])], [])


def test_execute_does_it(run: Run, group: Group) -> None:
    result = run(
        "events", "rewind", "--group", "billing", "--to", "earliest", "--topic", "login", "--execute", "--json"
    )
    assert json.loads(result.stdout) == {
        "group": "billing",
        "executed": True,
        "moves": [
            {"topic": "card-events.login", "partition": 0, "committed": 7, "becomes": 3, "again": 4, "skipped": 0},
            {"topic": "card-events.login", "partition": 1, "committed": None, "becomes": 3, "again": 0, "skipped": 0},
        ],
    }
    assert (group.planned, group.moved) == ([], [("billing", "earliest", ["card-events.login"])])


def test_a_busy_group_is_a_finding(run: Run, group: Group) -> None:
    group.error = GroupBusy("card-pipeline.billing", "2 live members")
    result = run("events", "rewind", "--group", "billing", "--to", "2h", "--execute")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: group_busy: card-pipeline.billing has 2 live members: stop them first; nothing was changed\n",
    )


def test_a_time_ahead_is_a_wrong_command_line(run: Run, group: Group) -> None:
    assert run("events", "rewind", "--group", "billing", "--to", "2999-01-01T00:00:00Z").exit_code == 2
    assert group.planned == []
