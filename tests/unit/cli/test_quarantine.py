"""`pipeline quarantine`: what was refused, masked; let go after a fix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.command_line import RememberingPorts, RememberingPublisher, Run

from pipeline.app import Ports
from pipeline.cli.context import actor
from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, EventHeaders, OutgoingRecord, Record, Topic, event_id
from pipeline.kafka import BrokerUnavailable, KafkaSettings
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.webhooks.records import QUARANTINED_TYPE, REASONS

CARD = "4111111111111111"
BODY: dict[str, Any] = {
    "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
    "partner_reference_id": f"location {CARD}",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": ["46691"],
    "record_count": 200,
    "input_file_url": "https://files.example.com/in.csv?X-Amz-Signature=planted",
    "result_upload_url": "https://files.example.com/out.csv?X-Amz-Signature=planted",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": "https://api.example.com/told?token=planted",
}
FIXED = json.dumps(BODY).encode()
BROKEN = json.dumps(BODY | {"record_count": -1}).encode()


CARD_EVENT = "/managed_cards/authorisations/watch"
STEPUP = "/stepup/watch"
RNG = Random(5)  # noqa: S311 - synthetic bodies, the same each time


def kept(path: str, body: bytes, *, call_ref: str, offset: int, topic: Topic = Topic.EVENTS_QUARANTINE) -> Record:
    """Return a quarantined event of Weavr, as the ingress writes it."""
    headers = EventHeaders(
        id=event_id("acme", path, call_ref, body),
        source="/webhooks/weavr/acme",
        type=QUARANTINED_TYPE,
        subject="acme",
        time=datetime(2026, 1, 21, 12, tzinfo=UTC),
        partition_key="acme",
    )
    extra = (
        (INTEGRATION_HEADER, b"acme"),
        (PATH_HEADER, path.encode()),
        ("call-ref", call_ref.encode()),
        ("published-timestamp", b"1769121839123"),
        (REASONS, b"id:required"),
    )
    return Record(topic, 0, offset, "acme", body, headers.encode(extra), 0)


def event(path: str = CARD_EVENT, **changes: Any) -> bytes:
    return json.dumps(body_of(path, RNG) | changes).encode()


@pytest.fixture
def weavr(home: Path) -> None:
    """A Weavr integration of the same name as ECS's, and a configured source."""
    with (home / "pipeline.toml").open("a") as file:
        file.write('[weavr.acme]\nsecrets = [{ file = "key" }]\n')
        file.write('[webhooks.shop]\npreset = "paystack"\nsecrets = [{ file = "key" }]\n')


def quarantined(body: bytes, *, integration: str = "acme", offset: int = 0) -> Record:
    headers = EventHeaders(
        id=event_id(integration, body),
        source=f"/webhooks/ecs/{integration}",
        type=QUARANTINED_TYPE,
        subject=integration,
        time=datetime(2026, 1, 21, 12, tzinfo=UTC),
        partition_key=integration,
    )
    extra = ((INTEGRATION_HEADER, integration.encode()), (REASONS, b"callback_url:host_not_allowed"))
    return Record(Topic.BATCH_QUARANTINE, 0, offset, integration, body, headers.encode(extra), 0)


@pytest.fixture
def ports() -> Ports:
    return RememberingPorts()


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Record]]:
    """What the quarantine topics hold."""
    held: list[Record] = []

    async def read_topic(_: KafkaSettings, topic: Topic) -> AsyncIterator[Record]:
        for record in held:
            if record.topic == topic:
                yield record

    monkeypatch.setattr("pipeline.cli.kept_records.read_topic", read_topic)
    RememberingPublisher.made.clear()
    yield held
    RememberingPublisher.made.clear()


def published() -> list[OutgoingRecord]:
    return [record for publisher in RememberingPublisher.made for record in publisher.published]


def test_the_list_says_what_is_valid_by_now(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records += [quarantined(FIXED), quarantined(BROKEN, offset=1), quarantined(FIXED, integration="old", offset=2)]
    rows = [json.loads(line) for line in run("quarantine", "list", "--json").stdout.splitlines()]
    assert [row["now"] for row in rows] == ["valid", "invalid", "integration unknown"]
    assert rows[0] == {
        "id": event_id("acme", FIXED),
        "integration": "acme",
        "topic": "card-batch.quarantine",
        "at": "2026-01-21T12:00:00+00:00",
        "reasons": ["callback_url:host_not_allowed"],
        "now": "valid",
    }
    assert run("quarantine", "list").stdout.splitlines()[0] == "id\tintegration\ttopic\tat\treasons\tnow"


def test_a_repeat_is_listed_once(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records += [quarantined(FIXED), quarantined(FIXED, offset=1)]
    assert len(run("quarantine", "list", "--json").stdout.splitlines()) == 1


def test_a_foreign_record_is_warned_of(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(Record(Topic.BATCH_QUARANTINE, 2, 7, "x", b"x", (), 0))
    result = run("quarantine", "list")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: card-batch.quarantine, partition 2, offset 7: "
        "A header of the quarantined record is missing or malformed\n"
    )


def test_show_masks_and_says_what_is_wrong(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(quarantined(BROKEN))
    result = run("quarantine", "show", event_id("acme", BROKEN)[:8])
    document = json.loads(result.stdout)
    assert document["now"] == "invalid"
    assert [finding["field"] for finding in document["findings"]] == ["record_count"]
    assert CARD not in result.output
    assert "planted" not in result.output


def test_show_of_a_valid_one_has_no_findings(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records += [quarantined(FIXED), quarantined(FIXED, integration="old", offset=1)]
    assert json.loads(run("quarantine", "show", event_id("acme", FIXED)).stdout)["findings"] == []
    assert json.loads(run("quarantine", "show", event_id("old", FIXED)).stdout)["findings"] == []


@pytest.mark.parametrize(
    ("item", "what"), [("zz", "no request in quarantine has"), ("", "2 requests in quarantine have")]
)
def test_an_id_must_mean_one(home: Path, run: Run, records: list[Record], item: str, what: str) -> None:
    del home
    records += [quarantined(FIXED), quarantined(BROKEN, offset=1)]
    result = run("quarantine", "show", item)
    assert result.exit_code == 1
    assert result.stderr == (f"error: quarantine_unknown: {what} an id that begins with {item!r}\n")


def test_what_is_valid_now_is_released(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(quarantined(FIXED))
    result = run("quarantine", "release", event_id("acme", FIXED), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "id": event_id("acme", FIXED),
        "released": True,
        "late": True,
        "findings": [],
    }
    record, event = published()
    assert (record.topic, record.value) == (Topic.BATCH_REQUESTED, FIXED)
    told = json.loads(event.value)
    assert (told["action"], told["actor"]) == ("quarantine.released", actor())


def test_what_is_still_invalid_stays_and_ends_with_1(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records += [quarantined(FIXED), quarantined(BROKEN, offset=1)]
    good, bad = event_id("acme", FIXED), event_id("acme", BROKEN)
    result = run("quarantine", "release", bad, good)
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first == f"{bad}: still invalid, see `pipeline quarantine show`"
    assert second.startswith(f"{good}: released (received ")
    assert second.endswith(" h ago, longer than card-batch.requested keeps a record)")
    assert [one.topic for one in published()] == [Topic.BATCH_REQUESTED, Topic.AUDIT_EVENTS]


def test_nothing_is_published_where_nothing_is_valid(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(quarantined(BROKEN))
    assert run("quarantine", "release", event_id("acme", BROKEN)).exit_code == 1
    assert RememberingPublisher.made == []


@pytest.mark.usefixtures("weavr")
def test_all_quarantines_are_one_list(run: Run, records: list[Record]) -> None:
    """Two integrations of one name, of different senders, do not mix."""
    records += [
        quarantined(FIXED),
        kept(CARD_EVENT, event(), call_ref="1", offset=0),
        kept("/novelties/watch", event(), call_ref="2", offset=1),
        kept(STEPUP, b"{}", call_ref="3", offset=0, topic=Topic.EVENTS_STEPUP_QUARANTINE),
    ]
    rows = [json.loads(line) for line in run("quarantine", "list", "--json").stdout.splitlines()]
    assert [(row["topic"], row["now"]) for row in rows] == [
        ("card-batch.quarantine", "valid"),
        ("card-events.quarantine", "valid"),
        ("card-events.quarantine", "invalid"),
        ("card-events.stepup.quarantine", "invalid"),
    ]
    assert run("quarantine", "list", "--integration", "nobody", "--json").stdout == ""


@pytest.mark.usefixtures("weavr")
def test_releases_come_in_the_order_in_which_they_were_received(run: Run, records: list[Record]) -> None:
    """Whatever the order of the ids; what still does not fit stays."""
    bodies = [event(), b"{}", event(), event()]
    records += [kept(CARD_EVENT, body, call_ref=str(offset), offset=offset) for offset, body in enumerate(bodies)]
    ids = [event_id("acme", CARD_EVENT, str(number), body) for number, body in enumerate(bodies)]
    result = run("quarantine", "release", ids[3], ids[1], ids[0], ids[2], ids[0], "--json")
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["id"], one["released"]) for one in told] == [
        (ids[3], True),
        (ids[1], False),
        (ids[0], True),
        (ids[2], True),
    ]
    events = [one for one in published() if one.topic is Topic.EVENTS_MANAGED_CARDS]
    assert [dict(one.headers)["ce_id"].decode() for one in events] == [ids[0], ids[2], ids[3]]
    assert [one.topic for one in published()] == [Topic.EVENTS_MANAGED_CARDS, Topic.AUDIT_EVENTS] * 3


@pytest.mark.usefixtures("weavr")
def test_all_of_an_integration_can_be_released(run: Run, records: list[Record]) -> None:
    """Its records are as the ingress would have written them: path, signature and schema included."""
    body = event()
    records += [
        kept(CARD_EVENT, body, call_ref="1", offset=3),
        kept(CARD_EVENT, body, call_ref="1", offset=4),
        kept(CARD_EVENT, b"{}", call_ref="2", offset=5),
        quarantined(FIXED, integration="other"),
    ]
    result = run("quarantine", "release", "--all", "--integration", "acme", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["released"] for line in result.stdout.splitlines()] == [True, False]
    record, _ = published()
    headers = {name: value.decode() for name, value in record.headers}
    assert (record.value, headers["ce_id"]) == (body, event_id("acme", CARD_EVENT, "1", body))
    assert headers["ce_dataschema"] == "urn:card-pipeline:schema:weavr.managed_cards.authorisations:v1"
    assert (headers["pipeline_path"], headers["call-ref"]) == (CARD_EVENT, "1")
    assert REASONS not in headers


@pytest.mark.usefixtures("weavr")
def test_a_step_up_may_be_released_late_and_that_is_said(run: Run, records: list[Record]) -> None:
    body = event(STEPUP)
    records.append(kept(STEPUP, body, call_ref="1", offset=0, topic=Topic.EVENTS_STEPUP_QUARANTINE))
    result = run("quarantine", "release", event_id("acme", STEPUP, "1", body)[:12])
    assert result.exit_code == 0
    assert "longer than card-events.stepup keeps a record" in result.stdout
    assert published()[0].topic is Topic.EVENTS_STEPUP


@pytest.mark.parametrize(
    "arguments", [(), ("--all",), ("0f", "--all", "--integration", "acme"), ("0f", "--integration", "acme")]
)
def test_release_needs_ids_or_all_of_one_integration(
    home: Path, run: Run, records: list[Record], arguments: tuple[str, ...]
) -> None:
    del home, records
    result = run("quarantine", "release", *arguments)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: release_what: name IDs, or --all with --integration NAME\n",
    )


@pytest.mark.usefixtures("weavr")
def test_show_holds_known_harmless_values_alone(run: Run, records: list[Record]) -> None:
    """Of a kind that is known, fields that are not sensitive; of anything else, how many fields there are."""
    body = event(authToken="planted-token", merchantName="planted-shop", novelty="planted-text")
    webhook = replace(quarantined(b'{"planted": "planted"}', integration="shop"), topic=Topic.WEBHOOK_QUARANTINE)
    unknown = kept("/novelties/watch", b'{"planted-name": "planted"}', call_ref="2", offset=1)
    records += [kept(CARD_EVENT, body, call_ref="1", offset=0), unknown, webhook]
    ids = [dict(record.headers)["ce_id"].decode() for record in records]
    shown = [run("quarantine", "show", item) for item in ids]
    known, other, source = (json.loads(one.stdout) for one in shown)
    assert known["event_path"] == CARD_EVENT
    assert known["body"]["id"] == json.loads(body)["id"]
    assert other["body"] == source["body"] == {"other_fields": 1}
    assert [finding["rule"] for finding in other["findings"]] == ["unknown_path"]
    assert all("planted" not in one.output for one in shown)


@pytest.mark.usefixtures("weavr")
def test_a_topic_that_cannot_be_read_is_warned_of(
    run: Run, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not everybody may read step-ups; without any topic there is no answer."""
    del records

    def only(*readable: Topic) -> None:
        async def read_topic(_: KafkaSettings, topic: Topic) -> AsyncIterator[Record]:
            if topic not in readable:
                raise BrokerUnavailable("broker_unavailable", f"{topic} cannot be read: Denied.")
            if topic is Topic.BATCH_QUARANTINE:
                yield quarantined(FIXED)

        monkeypatch.setattr("pipeline.cli.kept_records.read_topic", read_topic)

    only(Topic.BATCH_QUARANTINE, Topic.EVENTS_QUARANTINE, Topic.WEBHOOK_QUARANTINE)
    result = run("quarantine", "list")
    assert (result.exit_code, result.stderr) == (
        0,
        "warning: card-events.stepup.quarantine cannot be read: Denied.\n",
    )
    result = run("quarantine", "release", "--all", "--integration", "acme")
    assert (result.exit_code, [one.topic for one in published()]) == (0, [Topic.BATCH_REQUESTED, Topic.AUDIT_EVENTS])
    assert "warning: card-events.stepup.quarantine cannot be read" in result.stderr
    only()
    assert run("quarantine", "list").exit_code == 4
    assert run("quarantine", "release", "--all", "--integration", "acme").exit_code == 4


def test_a_user_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 10_001)
    assert actor() == "cli:10001"
