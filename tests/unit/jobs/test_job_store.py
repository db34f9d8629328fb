"""The job store: creation decides every race."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_store import Announced, JobStore
from pipeline.jobs.job_tree import JobRef, parse_marker
from pipeline.jobs.part_encryption import SEGMENT_BYTES, PartCipher, PartKey
from pipeline.jobs.part_store import Part
from pipeline.jobs.partners import JobAnnouncement
from pipeline.jobs.receipts import (
    Announcement,
    FilePosition,
    Manifest,
    NotificationAnswer,
    NotificationAttempt,
    NotificationResult,
    Outcome,
    Source,
)
from pipeline.storage import ObjectNotFound, StoreUnavailable
from pipeline.storage.testing import MemoryStore

JOB = UUID("cffde776-1d2a-4614-8023-a5148e411462")
NOW = datetime(2026, 1, 21, 12, 0, tzinfo=UTC)
REF = JobRef("acme", JOB)
KEY = PartKey("one", bytes(range(32)))


def request(**changes: object) -> JobAnnouncement:
    return JobAnnouncement.model_validate(
        {
            "job_guid": str(JOB),
            "partner_reference_id": "acme-1",
            "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
            "external_location_ids": [],
            "record_count": 3,
            "input_file_url": "https://files.example/in.csv?sig=1",
            "result_upload_url": "https://files.example/out.csv?sig=1",
            "expires_at": "2026-01-21T13:00:00Z",
            "callback_url": "https://ecs.example/callback",
        }
        | changes
    )


async def announce(
    jobs: JobStore,
    name: str = "a",
    *,
    hours: int = 1,
    new_attempt: bool = False,
    changes: dict[str, object] | None = None,
) -> Announced:
    return await jobs.announce(
        "acme",
        Announcement(
            id=name,
            attempt=1,
            deadline=NOW + timedelta(hours=hours),
            stored_at=NOW,
            request=request(**(changes or {})),
        ),
        new_attempt_after_failure=new_attempt,
    )


def outcome(news: str = "failed", body: str = "{}") -> Outcome:
    return Outcome.model_validate(
        {
            "outcome": news,
            "reason": None,
            "message": None,
            "body": body,
            "request_id": "r",
            "announcement": "a",
            "generation": None,
            "records": 0,
            "ok": 0,
            "failed": 0,
            "result_bytes": 0,
            "result_etag": "",
            "decided_by": "process",
            "at": NOW,
        }
    )


def manifest(number: int, data: str = "x") -> Manifest:
    position = FilePosition(byte=0, record=0, line=0)
    return Manifest(number=number, start=position, end=position, ok=1, failed=0, size=4, crc32=0, data=data)


async def test_the_first_announcement_is_new_its_repeat_too_and_another_one_renewed() -> None:
    jobs = JobStore(MemoryStore())
    assert [(await announce(jobs, name, hours=hours)).news for name, hours in [("a", 1), ("a", 1), ("b", 2)]] == [
        "new",
        "new",
        "renewed",
    ]
    assert (await jobs.newest(REF)).id == "b"


async def test_the_latest_deadline_counts_not_the_latest_arrival() -> None:
    jobs = JobStore(MemoryStore())
    await announce(jobs, "late", hours=5)
    await announce(jobs, "early", hours=2)
    assert (await jobs.newest(REF)).id == "late"


@pytest.mark.parametrize(
    ("field", "value"), [("record_count", 4), ("merchant_guid", "99999999-9999-4999-8999-999999999999")]
)
async def test_another_merchant_or_count_is_a_conflict_that_is_kept_beside(field: str, value: object) -> None:
    """It is not stored as an announcement. The differences are stored once, even if two groups see it."""
    jobs = JobStore(MemoryStore())
    first = await announce(jobs)
    found = await announce(jobs, "b", hours=9, changes={field: value})
    assert found.news == "conflict"
    again = await announce(jobs, "b", hours=9, changes={field: value})
    assert (again.news, again.ref, again.differences) == ("conflict", found.ref, found.differences)
    assert again.announcement.stored_at == found.announcement.stored_at
    assert (await jobs.newest(REF)).id == "a"
    assert [one.id for one in await jobs.announcements(REF)] == ["a"]
    (conflict,) = await jobs.conflicts(REF)
    assert (conflict.id, conflict.attempt, conflict.stored_at) == ("b", 1, found.announcement.stored_at)
    (difference,) = conflict.differences
    assert (difference.field, difference.first, difference.later) == (
        field,
        str(getattr(first.announcement.request, field)),
        str(value),
    )


async def test_two_groups_that_announce_at_once_agree() -> None:
    jobs = JobStore(MemoryStore())
    both = await asyncio.gather(announce(jobs), announce(jobs))
    assert both[0].announcement == both[1].announcement
    assert {one.news for one in both} == {"new"}


async def test_a_repeat_is_known_by_its_name_when_another_margin_gives_it_another_deadline() -> None:
    """Otherwise a redelivered record could begin a new attempt of a failed job after a change of settings."""
    jobs = JobStore(MemoryStore())
    first = await announce(jobs, new_attempt=True)
    await jobs.decide(REF, outcome())
    again = await announce(jobs, hours=2, new_attempt=True)
    assert (again.ref.attempt, again.announcement) == (1, first.announcement)


async def test_a_new_attempt_begins_only_after_a_failure_and_has_receipts_of_its_own() -> None:
    jobs = JobStore(MemoryStore())
    await announce(jobs, new_attempt=True)
    assert (await announce(jobs, "b", hours=2, new_attempt=True)).ref.attempt == 1
    await jobs.decide(REF, outcome())
    second = await announce(jobs, "c", hours=3, new_attempt=True)
    assert second.ref.attempt == 2
    assert await jobs.outcome(second.ref) is None
    assert (await jobs.newest(REF)).id == "b"
    assert (await jobs.newest(second.ref)).id == "c"
    assert (await announce(jobs, "c", hours=3, new_attempt=True)).ref == second.ref
    assert second.ref.work.endswith("/attempts/2/")


async def test_a_completed_job_gets_no_new_attempt() -> None:
    jobs = JobStore(MemoryStore())
    await announce(jobs, new_attempt=True)
    await jobs.decide(REF, outcome("completed"))
    assert (await announce(jobs, "b", hours=2, new_attempt=True)).ref.attempt == 1


async def test_the_first_outcome_stays() -> None:
    jobs = JobStore(MemoryStore())
    first, second = outcome(body="1"), outcome("completed", body="2")
    assert (await jobs.decide(REF, first)).body == "1"
    assert (await jobs.decide(REF, second)).body == "1"


async def test_a_creation_whose_answer_was_lost_is_ones_own_when_read_back() -> None:
    """By the nonce a worker recognises its own object, so a retry of the same receipt wins and another one does not."""
    store = MemoryStore()
    jobs = JobStore(store)
    mine = manifest(0)
    store.objects[REF.manifest("g", 0)] = mine.model_dump_json().encode()
    assert await jobs.record_manifest(REF, "g", mine)
    assert not await jobs.record_manifest(REF, "g", manifest(0))


async def test_the_checkpoint_is_the_furthest_generation_of_the_same_plan() -> None:
    jobs = JobStore(MemoryStore())
    for name, plan, numbers in [("g1", "p", [0]), ("g2", "p", [0, 1, 3]), ("g3", "other", [0, 1, 2, 3])]:
        await jobs.record_source(REF, name, Source(plan=plan, etag=name, size=1, encoding="identity", header=b"h"))
        for number in numbers:
            await jobs.record_manifest(REF, name, manifest(number))
    found = await jobs.checkpoint(REF, "p")
    assert found is not None
    assert (found.generation, found.gapless, sorted(found.manifests)) == ("g2", 2, [0, 1, 3])
    named = await jobs.checkpoint(REF, "p", "g1")
    assert named is not None
    assert named.generation == "g1"
    assert named.source.header == b"h"
    assert await jobs.checkpoint(REF, "nobody's") is None


@pytest.fixture(params=["encrypted", "clear"])
def cipher(request: pytest.FixtureRequest) -> PartCipher:
    return PartCipher([KEY], encrypts=request.param == "encrypted")


def manifest_of(number: int, part: Part) -> Manifest:
    return manifest(number).model_copy(update={"data": part.key, "crc32": part.crc32, "sealed": part.sealed})


async def test_parts_are_streamed_in_order_and_a_damaged_one_is_noticed(cipher: PartCipher) -> None:
    store = MemoryStore()
    jobs = JobStore(store, cipher)
    written = [await jobs.write_part(REF, "g", 40 + number, b"part%d" % number) for number in range(2)]
    manifests = [manifest_of(number, part) for number, part in enumerate(written)]
    assert b"".join([piece async for piece in jobs.stream(manifests)]) == b"part0part1"
    store.objects[written[1].key] = b"xxxxx"
    pieces: list[bytes] = []
    with pytest.raises(JobDamaged, match="the part of chunk 1 was changed") as caught:
        pieces.extend([piece async for piece in jobs.stream(manifests)])
    assert caught.value.key == written[1].key
    assert pieces == []
    del store.objects[written[0].key]
    with pytest.raises(JobDamaged, match="the part of chunk 0 is missing"):
        _ = [piece async for piece in jobs.stream(manifests)]


@pytest.mark.parametrize("size", [600_000, 8 * SEGMENT_BYTES])
async def test_the_end_of_a_damaged_part_never_comes(cipher: PartCipher, size: int) -> None:
    """A host that was promised so many bytes must not get them all: it would keep the damaged result."""
    store = MemoryStore()
    jobs = JobStore(store, cipher)
    data = random.Random(7).randbytes(size)  # noqa: S311 - test data, the same each time
    part = await jobs.write_part(REF, "g", 0, data)
    stored = bytearray(store.objects[part.key])
    stored[-1] ^= 1
    store.objects[part.key] = bytes(stored)
    seen: list[bytes] = []

    async def read() -> None:
        async for piece in jobs.stream([manifest_of(0, part)]):
            seen.append(piece)  # noqa: PERF401 - those before the error count

    with pytest.raises(JobDamaged):
        await read()
    assert 0 < len(b"".join(seen)) < len(data)


async def test_parts_of_an_earlier_setting_are_read(cipher: PartCipher) -> None:
    """Encryption is switched on or off while jobs are in work."""
    store = MemoryStore()
    other = PartCipher([KEY], encrypts=not cipher.encrypts)
    parts = [await JobStore(store, one).write_part(REF, "g", 40, b"card") for one in (cipher, other)]
    manifests = [manifest_of(number, part) for number, part in enumerate(parts)]
    assert b"".join([piece async for piece in JobStore(store, cipher).stream(manifests)]) == b"cardcard"
    assert [part.key.endswith(".csv.aes") for part in parts] == [cipher.encrypts, other.encrypts]


@pytest.mark.parametrize("key", ["jobs/acme/x", "a", "b/c/d.json", "open/202601211200/acme/README"])
async def test_a_listing_of_markers_passes_over_foreign_objects_and_names_each_once(key: str) -> None:
    store = MemoryStore()
    jobs = JobStore(store)
    foreign = [
        f"open/{key}",
        f"open/20260121/acme/{JOB}.1",
        f"open/209913411200/acme/{JOB}.1",
        f"open/202601211200/acme/{JOB}.0",
        f"open/202601211200/acme/{JOB}.-1",
        f"open/202601211200/acme/{JOB}.x",
        f"open/202601211200/acme/{str(JOB).upper()}.1",
        f"open/202601211200/acme/{JOB.hex}.1",
        f"open/202601211200/acme/{JOB}.1/below",
    ]
    store.objects |= dict.fromkeys(foreign, b"")
    await jobs.file("open", REF, NOW)
    with capture_logs() as logs:
        for _ in range(2):
            assert [marker.ref async for marker in jobs.filed("open")] == [REF]
    assert sorted(line["key"] for line in logs) == sorted(foreign)
    assert {line["event"] for line in logs} == {"store_object_foreign"}
    assert store.objects.keys() >= set(foreign)


async def test_foreign_objects_of_a_job_are_passed_over() -> None:
    store = MemoryStore()
    jobs = JobStore(store)
    await announce(jobs)
    await jobs.record_source(REF, "g", Source(plan="p", etag="e", size=1, encoding="identity"))
    await jobs.record_manifest(REF, "g", manifest(0))
    await jobs.record_attempt(REF, NotificationAttempt(number=1, at=NOW))
    for folder, names in {
        "announcements": ("~backup", "zzz.json"),
        "parts": ("list.json", "g/1.json", "g/x.csv", "g/deep/00000007.json"),
        "told": ("notes.txt", "backup.json", "1.json"),
        "again": ("what",),
    }.items():
        store.objects |= {f"{REF.root}{folder}/{name}": b"?" for name in names}
    assert (await jobs.newest(REF)).id == "a"
    assert (await announce(jobs)).news == "new"
    assert await jobs.finished_chunks(REF) == {"g": {0}}
    assert await jobs.decided_cards(REF) == (manifest(0).ok, manifest(0).failed)
    assert await jobs.notification_attempts(REF) == (1, True)
    assert await jobs.final_result(REF) is None


async def test_tries_know_whether_an_answer_is_missing() -> None:
    jobs = JobStore(MemoryStore())
    assert await jobs.notification_attempts(REF) == (0, False)
    assert await jobs.record_attempt(REF, NotificationAttempt(number=1, at=NOW))
    assert not await jobs.record_attempt(REF, NotificationAttempt(number=1, at=NOW))
    assert await jobs.notification_attempts(REF) == (1, True)
    await jobs.record_answer(REF, NotificationAnswer(number=1, status=503, code="busy", detail="", at=NOW))
    assert await jobs.notification_attempts(REF) == (1, False)
    assert await jobs.notification_attempts(REF, "again") == (0, False)


async def test_a_confirmation_counts_before_a_refusal() -> None:
    jobs = JobStore(MemoryStore())
    for told in ("refused", "confirmed"):
        receipt = NotificationResult.model_validate(
            {"told": told, "tries": 1, "status": 1, "code": "", "detail": "", "at": NOW}
        )
        await jobs.record_result(REF, receipt)
        found = await jobs.notification_result(REF)
        assert found is not None
        assert found.told == told


async def test_filed_jobs_come_by_minute_and_can_be_taken_out() -> None:
    jobs = JobStore(MemoryStore())
    later = JobRef("beta", JOB, 2)
    await jobs.file("open", later, NOW + timedelta(minutes=5))
    await jobs.file("open", REF, NOW)
    await jobs.file("open", REF, NOW)
    assert [one.ref async for one in jobs.filed("open")] == [REF, later]
    assert [one.ref async for one in jobs.filed("open", until=NOW)] == [REF]
    marker = parse_marker(REF.marker("open", NOW))
    assert marker is not None
    assert marker.over == NOW + timedelta(minutes=1)
    await jobs.unfile(marker.key)
    assert [one.ref async for one in jobs.filed("open")] == [later]


async def test_an_unreadable_object_is_damage_to_its_job_and_logged_with_its_key_once() -> None:
    """The partner may read the error, so it does not name the object; what the object held is not shown at all."""
    store = MemoryStore()
    jobs = JobStore(store)
    store.objects[f"{REF.work}outcome.json"] = b'{"outcome": "https://x.example/?sig=planted"}'
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(JobDamaged, match=r"Outcome is unreadable") as caught:
                await jobs.outcome(REF)
    assert "jobs/" not in caught.value.message
    assert caught.value.__cause__ is None
    assert [(line["event"], line["key"]) for line in logs] == [("store_object_damaged", f"{REF.work}outcome.json")]
    assert "planted" not in repr(logs)


async def test_an_unknown_job_has_no_newest_announcement() -> None:
    with pytest.raises(ObjectNotFound):
        await JobStore(MemoryStore()).newest(REF)


async def test_an_announcement_that_an_older_version_stored_is_read_and_its_further_fields_stay() -> None:
    """Before there were other partners the store held ECS's announcement as it came."""
    memory = MemoryStore()
    stored = (
        '{"nonce":"n","id":"a","attempt":1,"deadline":"2026-01-21T12:59:30Z","stored_at":"2026-01-21T12:00:00Z",'
        f'"request":{{"job_guid":"{JOB}","partner_reference_id":"acme-1",'
        '"merchant_guid":"4933e450-d3c4-406f-9b9b-3afb812a5b7c","external_location_ids":["46691"],"record_count":3,'
        '"input_file_url":"https://files.example/in.csv?sig=1","result_upload_url":"https://files.example/out.csv?sig=1",'
        '"expires_at":"2026-01-21T13:00:00Z","callback_url":"https://ecs.example/callback","beta":{"x":1}}}'
    )
    await memory.create(f"{REF.root}announcements/000001769000370-a.json", stored.encode())
    newest = await JobStore(memory).newest(REF)
    assert newest.request == request(external_location_ids=["46691"], beta={"x": 1})
    assert newest.traceparent is None
    assert newest.model_dump_json(exclude_none=True) == stored


async def test_an_object_deleted_between_its_creation_and_its_reading_is_tried_again() -> None:
    """Another worker's manifest, say, whose job was purged meanwhile: nothing permanent may follow from it."""

    class Deleting(MemoryStore):
        async def create(self, key: str, data: bytes) -> bool:
            won = await super().create(key, data)
            await self.delete(key)
            return won

    store = Deleting()
    store.objects[REF.manifest("g", 0)] = b"another's"
    with pytest.raises(StoreUnavailable, match="deleted right after"):
        await JobStore(store).record_manifest(REF, "g", manifest(0))
    assert await JobStore(store).record_manifest(REF, "g", manifest(0))
