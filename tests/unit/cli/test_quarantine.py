"""`pipeline quarantine`: what was refused, masked; let go after a fix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.command_line import RememberingPublisher, Run

from pipeline.bus import KafkaSettings, Outgoing, Record
from pipeline.cli.actor import actor
from pipeline.contracts import INTEGRATION_HEADER, EventHeaders, Topic, event_id
from pipeline.ingress.records import QUARANTINED_TYPE, REASONS

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
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Record]]:
    """What the quarantine topic holds."""
    held: list[Record] = []

    async def read_topic(_: KafkaSettings, topic: Topic) -> AsyncIterator[Record]:
        assert topic is Topic.BATCH_QUARANTINE
        for record in held:
            yield record

    monkeypatch.setattr("pipeline.cli.quarantine.read_topic", read_topic)
    monkeypatch.setattr("pipeline.cli.quarantine.KafkaPublisher", RememberingPublisher)
    RememberingPublisher.made.clear()
    yield held
    RememberingPublisher.made.clear()


def published() -> list[Outgoing]:
    return [record for publisher in RememberingPublisher.made for record in publisher.published]


def test_the_list_says_what_is_valid_by_now(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records += [quarantined(FIXED), quarantined(BROKEN, offset=1), quarantined(FIXED, integration="old", offset=2)]
    rows = [json.loads(line) for line in run("quarantine", "list", "--json").stdout.splitlines()]
    assert [row["now"] for row in rows] == ["valid", "invalid", "integration unknown"]
    assert rows[0] == {
        "id": event_id("acme", FIXED),
        "integration": "acme",
        "at": "2026-01-21T12:00:00+00:00",
        "reasons": ["callback_url:host_not_allowed"],
        "now": "valid",
    }
    assert run("quarantine", "list").stdout.splitlines()[0] == "id\tintegration\tat\treasons\tnow"


def test_a_repeat_stands_in_the_list_once(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records += [quarantined(FIXED), quarantined(FIXED, offset=1)]
    assert len(run("quarantine", "list", "--json").stdout.splitlines()) == 1


def test_a_foreign_record_is_warned_of(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(Record(Topic.BATCH_QUARANTINE, 2, 7, "x", b"x", (), 0))
    result = run("quarantine", "list")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: partition 2, offset 7: A header of the quarantined record is missing or malformed\n"
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


@pytest.mark.parametrize(("item", "what"), [("zz", "nothing"), ("", "2 announcements")])
def test_an_id_must_mean_one(home: Path, run: Run, records: list[Record], item: str, what: str) -> None:
    del home
    records += [quarantined(FIXED), quarantined(BROKEN, offset=1)]
    result = run("quarantine", "show", item)
    assert result.exit_code == 1
    assert result.stderr == (f"error: quarantine_unknown: {what} with an id that begins with {item!r} in quarantine\n")


def test_what_is_valid_now_is_released(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(quarantined(FIXED))
    result = run("quarantine", "release", event_id("acme", FIXED), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"id": event_id("acme", FIXED), "released": True, "findings": []}
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
    assert result.stdout == f"{bad}: still invalid, see `pipeline quarantine show`\n{good}: released\n"
    assert [one.topic for one in published()] == [Topic.BATCH_REQUESTED, Topic.AUDIT_EVENTS]


def test_nothing_is_published_where_nothing_is_valid(home: Path, run: Run, records: list[Record]) -> None:
    del home
    records.append(quarantined(BROKEN))
    assert run("quarantine", "release", event_id("acme", BROKEN)).exit_code == 1
    assert RememberingPublisher.made == []


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 10_001)
    assert actor() == "cli:10001"
