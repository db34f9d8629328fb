"""Names, tokens, card and account numbers in all 32 of Weavr's events: planted everywhere, searched for everywhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.event_secrecy import (
    DEAD_LETTERS,
    EVENT_TOPICS,
    QUARANTINES,
    World,
    everything_happened_to_events,
    records_of,
)
from support.prefork import Prefork

from pipeline.contracts import Record, Topic, TopicName
from pipeline.contracts.weavr import KINDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPUPS: Final[Collection[TopicName]] = {Topic.EVENTS_STEPUP, Topic.EVENTS_STEPUP_QUARANTINE, DEAD_LETTERS[1]}
BODIES: Final = (*EVENT_TOPICS, *QUARANTINES, *DEAD_LETTERS)
"""Topics whose values are bodies as received."""
IN_HEADS: Final = {"signature", "echo", "path"}
IN_BODIES: Final = {"marker", "token", "name", "repeated name"}
_SHOW_BODIES: Final = ("pipeline events tail", "pipeline quarantine show")
_FINDING: Final = re.compile(rb"planted[a-p]+(?=:duplicate_key|: duplicate_key|\", \"rule\": \"duplicate_key)")
"""A finding about a body names a field: letters alone, or ``?``."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[World]:
    async with everything_happened_to_events(embedded_broker, tmp_path_factory.mktemp("events"), prefork) as world:
        yield world


def hits(world: World, texts: Mapping[str, bytes], allowed: Collection[str] = ()) -> dict[str, dict[str, set[bytes]]]:
    assert texts
    searched = {where: _FINDING.sub(b"", text) for where, text in texts.items()}
    return {where: found for where, text in searched.items() if (found := world.plants.found(text, allowed=allowed))}


def head(record: Record) -> bytes:
    lines = [record.key.encode(), *(name.encode() + b": " + value for name, value in record.headers)]
    return _FINDING.sub(b"", b"\n".join(lines))


async def test_the_search_finds_what_was_planted_where_it_must_be(world: World) -> None:
    """Every event's value holds its markers, a step-up's its token; headers hold signatures; files hold secrets."""
    values: dict[str, bytes] = {}
    for record in await records_of(world, EVENT_TOPICS):
        kind = dict(record.headers)["ce_type"].decode()
        values[kind] = values.get(kind, b"") + record.value
    assert values.keys() >= {kind.type for kind in KINDS}
    assert [kind for kind, value in values.items() if "marker" not in world.plants.found(value)] == []
    assert [kind for kind, value in values.items() if "token" in world.plants.found(value)] == ["weavr.stepup"]
    heads = b"\n".join(head(record) for record in await records_of(world, BODIES))
    assert world.plants.found(heads).keys() == IN_HEADS
    files = b"".join(path.read_bytes() for path in (world.flow.folder / "secrets").iterdir())
    assert world.plants.found(files)["secret"] == {name.encode() for name in world.plants.secrets}


async def test_the_search_is_not_fooled(world: World) -> None:
    """It finds a marker cut off, in capitals or in an address, and a number only as a word of its own."""
    number = next(iter(sorted(one for one in world.plants.wholes if one.isdigit())))
    for text in (b"planted12", b"PLANTED12AB", b"x=planted12ab34cd@example.com", b"GB11TEST1234567", b"+" + number):
        assert "marker" in world.plants.found(text), text
    for text in (b"0." + number, b"a" + number, number + b"0", b"2026-11-28", b"EST123456"):
        assert world.plants.found(text) == {}, text


async def test_everything_happened(world: World) -> None:
    """Each kind of event was answered in every way, and each topic has its records; nothing is vacuous."""
    ways = Counter(knock.way for knock in world.knocks)
    assert [way for way, number in ways.items() if number >= len(KINDS)] == [
        *(
            "right",
            "wrong key",
            "malformed",
            "stale",
            "misfit",
            "deep misfit",
            "unknown path",
            "broken JSON",
            "a name twice",
        ),
        *("new fields", "huge"),
    ]
    assert {record.topic for record in await records_of(world, BODIES)} == set(BODIES)
    subscriber = (world.flow.folder / "subscriber.out").read_text()
    for code in ("attempts_exhausted", "handler_poison", "event_unfit"):
        assert code in subscriber
    assert "subscriber_repeats_total" in subscriber
    for line in ("webhook_quarantined", "webhook_alarm", "webhook_refused", "webhook_taken", "capture_began"):
        assert f'"{line}"' in world.flow.processes["ingress"].log


async def test_logs(world: World) -> None:
    """Standard output and error of every process, at level debug; a handler raised events in its exceptions' texts."""
    paths = [*world.flow.folder.glob("*.err"), *world.flow.folder.glob("*.out")]
    printed = {path.name: path.read_bytes() for path in paths if not path.name.startswith("command-")}
    assert hits(world, printed) == {}


async def test_answers_metrics_and_commands(world: World) -> None:
    """Problem documents, metrics, health, and what every command prints on stdout and stderr."""
    shown = {where: text for where, text in world.said.items() if where.startswith(_SHOW_BODIES)}
    others = {where: text for where, text in world.said.items() if where not in shown}
    assert hits(world, others) == {}
    # which fields a body has, its path, its place in a topic
    assert hits(world, shown, allowed={"name", "repeated name", "path"}) == {}


async def test_topics(world: World) -> None:
    """Keys and headers hold signatures and the sender's own words alone; only values of events' topics hold bodies."""
    found = {}
    for record in await records_of(world, [*BODIES, Topic.AUDIT_EVENTS, Topic.AUDIT_DEAD_LETTER]):
        bodies = record.topic in BODIES
        # whose value is a body may hold anything but secrets and signatures
        texts = {
            "head": (head(record), IN_HEADS if bodies else ()),
            "value": (record.value if bodies else _FINDING.sub(b"", record.value), IN_BODIES if bodies else ()),
        }
        for part, (text, allowed) in texts.items():
            if one := world.plants.found(text, allowed=allowed):
                found[record.topic, record.partition, record.offset, part] = one
    assert found == {}


async def test_tokens_stay_where_they_are_guarded(world: World) -> None:
    """A step-up's token is in its topic, its quarantine and its dead letters, and in no other topic."""
    topics = [topic for topic in [*BODIES, *Topic] if topic not in STEPUPS]
    everywhere = {record.topic: world.plants.found(record.value) for record in await records_of(world, topics)}
    assert [topic for topic, found in everywhere.items() if "token" in found] == []
    for topic in STEPUPS:
        values = b"".join([record.value for record in await records_of(world, [topic])])
        assert "token" in world.plants.found(values), topic


async def test_audit_log(world: World) -> None:
    """The audit log names what was kept, refused and released, and nothing of what it holds."""
    lines = [json.dumps(line) for line in world.flow.audit_lines()]
    actions = {line["event"]["action"] for line in world.flow.audit_lines()}
    assert actions >= {"webhook.quarantined", "webhook.refusals", "quarantine.released"}
    assert hits(world, {"audit log": "\n".join(lines).encode()}) == {}
    files = {str(path): path.read_bytes() for path in world.flow.store.rglob("*") if path.is_file()}
    assert hits(world, files) == {}


async def test_captured_requests_are_gone(world: World) -> None:
    """The capture is in the folder that the command names, for its owner alone, and nowhere else."""
    assert [path.name for path in (world.flow.folder / "capture").iterdir()] == []
    assert [path.stat().st_mode & 0o777 for path in world.kept] == [0o600]
