"""Card numbers, PINs, tokens, secrets and URL signatures: planted in every way in, searched for in every way out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Final

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import JOB_TOPICS
from support.prefork import Prefork
from support.secrecy import CARDS, POISON, World, card_rows, everything_happened

from pipeline.cli.job_view import decided_parts
from pipeline.contracts import Record, Topic
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.part_encryption import open_part_cipher
from pipeline.kafka import read_topic
from pipeline.settings import load_settings
from pipeline.storage import LocalStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALLOWED: Final[dict[str, set[str]]] = {
    Topic.BATCH_REQUESTED: {"url"},
    Topic.BATCH_DEAD_LETTER: {"url"},
    # what strangers wrote, as they wrote it: they planted everything but secrets
    Topic.BATCH_QUARANTINE: {"url", "card", "six-digit card", "card data"},
}
"""What the values of a topic may hold; others nothing, and no key and no header anything."""

TOPICS: Final = {spec.topic for spec in JOB_TOPICS}
POISONED: Final = TOPICS - {Topic.BATCH_COMPLETED, Topic.BATCH_QUARANTINE}
"""Where poisoned records were published, and their dead-letter topics."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[World]:
    async with everything_happened(embedded_broker, tmp_path_factory.mktemp("flow"), prefork) as world:
        yield world


def assert_silent(world: World, written: Mapping[str, bytes]) -> None:
    """No text holds anything that was planted."""
    assert written
    assert {where: hits for where, text in written.items() if (hits := world.plants.found(text))} == {}
    assert [where for where, text in written.items() if POISON.encode() in text] == []


async def records(world: World) -> list[Record]:
    return [record for topic in Topic async for record in read_topic(world.flow.kafka, topic)]


async def test_the_search_finds_what_was_planted_where_it_must_be(world: World) -> None:
    """Input, result and parts hold cards; announcements hold signatures; files hold the secrets; nothing is vacuous."""
    plants, disk = world.plants, world.flow.sandbox.store.disk
    done, loud = world.jobs["done"], world.jobs["loud"]
    source = disk.get(done.input_key)
    result = disk.get(done.result_key)
    assert source
    assert result
    planted = plants.found(source.path.read_bytes())
    assert len(planted["card"]) == CARDS
    assert len(planted["card data"]) == 2 * CARDS
    assert plants.found(result.path.read_bytes()) == {"card": planted["card"]}  # PINs and CVVs were dropped
    six = disk.get(world.jobs["six digits"].result_key)
    assert six
    assert len(plants.found(six.path.read_bytes())["six-digit card"]) == CARDS

    jobs = JobStore(LocalStore(world.flow.store), open_part_cipher(load_settings(world.flow.config, {}).parts))
    manifests = await decided_parts(jobs, JobRef("loud", loud.guid))
    parts = b"".join([piece async for piece in jobs.stream(manifests)])
    assert loud.ledger
    assert len(plants.found(parts)["card"]) == loud.ledger.records
    encrypted = b"".join(one.inline or b"" for one in manifests)
    encrypted += b"".join(path.read_bytes() for path in world.folders["loud"].rglob("parts/*/*"))
    assert len(encrypted) > len(parts)
    assert plants.found(encrypted) == {}
    stored = b"".join(path.read_bytes() for path in world.folders["loud"].glob("announcements/*"))
    assert len(plants.found(stored)["url"]) == 4  # the signatures of three URLs, and the key that signed two of them
    files = b"".join(path.read_bytes() for path in (world.flow.folder / "secrets").iterdir())
    assert len(plants.found(files)["secret"]) == len(plants.secrets)


async def test_the_search_is_not_fooled(world: World) -> None:
    """A card number is found grouped, cut, glued to other digits; a six-digit one in any sentence."""
    card = card_rows()[1][0]
    grouped = " ".join(card[at : at + 4] for at in range(0, 16, 4))
    disguises = [f'"{card}"', grouped, grouped.replace(" ", "-"), f"77{card}77", card[:12], card[4:], f"/x/{card}?y"]
    for text in disguises:
        assert world.plants.found(text.encode())["card"] == {card.encode()}, text
    for text in ("card 100001 is bad", '{"number":100001}', "=100001", "100001-100009"):
        assert b"100001" in world.plants.found(text.encode())["six-digit card"], text
    assert world.plants.found(b"1100001 bytes in 0.100001 s, id ab100001, 2026-11-23T10:00:01.100001Z") == {}


async def test_everything_happened(world: World) -> None:
    """The jobs ended as planned, so that each kind of failure wrote its texts."""
    ends = {}
    for name, folder in world.folders.items():
        outcome = json.loads((folder / "outcome.json").read_bytes())
        ends[name] = (outcome["reason"] or outcome["outcome"], (folder / "confirmed.json").exists())
    assert ends == {
        "done": ("completed", True),
        "quote in mid-field": ("csv_quote_in_unquoted_field", True),
        "six digits": ("completed", True),
        "quote never closed": ("csv_unterminated_quote", True),
        "no header": ("csv_header_looks_like_data", True),
        "no header, six digits": ("csv_card_column_missing", True),
        "more than announced": ("record_count_mismatch", True),
        "expired": ("deadline_passed", True),
        "input refused": ("source_forbidden", True),
        "input cut": ("completed", True),
        "result refused": ("upload_checksum_refused", True),
        "clumsy": ("processor_failed", True),
        "card API": ("completed", True),
        "loud": ("completed", False),
        "shared": ("completed", True),
    }
    found = await records(world)
    assert {record.topic for record in found} == TOPICS
    assert '"callback_refused"' in world.flow.processes["confirm"].log
    assert '"card_seen"' in world.flow.processes["process"].log


async def test_logs(world: World) -> None:
    """Standard output and error of every process, at level debug, in which the clumsy processor tried to log cards."""
    paths = [*world.flow.folder.glob("*.err"), *world.flow.folder.glob("*.out")]
    assert_silent(world, {path.name: path.read_bytes() for path in paths})


async def test_answers_and_commands(world: World) -> None:
    """Problem documents, callback bodies, metrics, health, and what every command prints on stdout and stderr."""
    assert_silent(world, world.said)


async def test_topics(world: World) -> None:
    """Keys, headers (traceparent among them) and values; only the values of announcements may hold signed URLs."""
    plants = world.plants
    hits = {}
    signed = 0
    for record in await records(world):
        texts = {
            "head": (record.key.encode() + b" ".join(name.encode() + value for name, value in record.headers), ()),
            "value": (record.value, ALLOWED.get(record.topic, ())),
        }
        for part, (text, allowed) in texts.items():
            if found := plants.found(text, allowed=allowed):
                hits[record.topic, record.partition, record.offset, part] = found
        signed += "url" in plants.found(record.value)
        assert (POISON.encode() in record.value) <= (record.topic in POISONED)
    assert hits == {}
    assert signed


async def test_job_store(world: World) -> None:
    """No object holds a card in clear; announcements of unconfirmed jobs hold signed URLs; all others hold neither."""
    store, hits, audit = world.flow.store, {}, 0
    for path in (path for path in store.rglob("*") if path.is_file()):
        name = str(path.relative_to(store))
        audit += name.startswith("audit/")
        unconfirmed = "/announcements/" in name and not (path.parents[1] / "confirmed.json").exists()
        allowed = {"url"} if unconfirmed else set[str]()
        if found := world.plants.found(name.encode()) | world.plants.found(path.read_bytes(), allowed=allowed):
            hits[name] = found
    assert hits == {}
    assert audit
