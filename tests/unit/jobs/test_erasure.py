"""What goes when a job ends, and what an erasure leaves: no signed URL, no text, and every decision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from support.job_world import BEGIN, CARDS, World

from pipeline.contracts import Record, Topic
from pipeline.errors import TransientError
from pipeline.jobs.erasure import ERASED, erase_texts
from pipeline.jobs.operations import Operations, Refused, check_notify, check_retry
from pipeline.jobs.partners import Answer
from pipeline.jobs.receipts import Announcement, Outcome
from pipeline.jobs.settings import JobPolicies
from pipeline.jobs.transfer import UploadRefused
from pipeline.storage import StoreUnavailable
from pipeline.storage.testing import MemoryStore

REFUSAL = Answer("refused", 404, "callback_unknown_job", "no such job, said card 4242-spoken")
SLOW_DOWN = TransientError("slow_down", "The input storage answers 503.")
HTML = b"<html>4242-written</html>\n"


def holding(world: World, text: str) -> list[str]:
    """Return the keys of the objects that contain a text, in clear or in base64."""
    return sorted(key for key, data in world.memory.objects.items() if text in _readable(key, data))


def _readable(key: str, data: bytes) -> str:
    plain = data.decode(errors="replace")
    if "/announcements/" in key:
        return plain + (Announcement.model_validate_json(data).value or b"").decode()
    return plain


def messages(world: World) -> set[tuple[str, bytes]]:
    """What was published to the topics of jobs; who repeats an audit event is its actor."""
    return {(one.topic, one.value) for one in world.bus.published if one.topic != Topic.AUDIT_EVENTS}


def decided(world: World) -> Outcome:
    return Outcome.model_validate_json(world.memory.objects[f"{world.ref.work}outcome.json"])


async def test_no_signed_url_is_left_when_a_job_has_ended() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.process, record)
    assert holding(world, "planted") == [key for key in world.memory.objects if "/announcements/" in key]
    await world.run(record)
    assert holding(world, "planted") == []
    newest = await world.jobs.newest(world.ref)
    assert newest.erased == ("input_file_url", "result_upload_url")
    assert newest.request.callback_url == "https://ecs.example/callback"
    assert newest.value is None


async def test_repeated_records_of_an_ended_job_change_nothing_and_say_the_same() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.run(record)
    stored, said = dict(world.memory.objects), messages(world)
    world.restart()
    for repeated in (record, world.again(record)):
        await world.deliver(world.watch, repeated)
        await world.run(repeated)
    assert world.memory.objects == stored
    assert messages(world) == said
    assert (len(world.ecs.calls), len(world.objects.put)) == (1, 1)


async def test_a_job_that_is_announced_again_after_its_end_is_notified_again_and_its_urls_go_too() -> None:
    """Under a deadline before the first one, too: the address of the new announcement is used, not an erased one."""
    world = World()
    first = "https://ecs.example/callback?sig=planted3"
    await world.run(world.announce(callback_url=first))
    assert holding(world, "planted") == []
    for minutes, url in ((30, "https://ecs.example/again?sig=planted4"), (90, "https://ecs.example/once-more")):
        world.clock.forward(seconds=1)
        expires = (BEGIN.replace(minute=0)).isoformat().replace("12:00", f"{12 + minutes // 60}:{minutes % 60:02d}")
        world.bus.published.clear()
        await world.run(world.announce(callback_url=url, expires_at=expires))
        assert world.ecs.calls[-1][0] == url
    assert len({(body, ident) for _, _, body, ident in world.ecs.calls}) == 1
    assert holding(world, "planted") == []


async def test_each_of_two_announcements_after_the_end_is_notified_at_a_url_that_is_still_there() -> None:
    """The end of the first notification erased the address that the second one needs, and that one was refused."""
    world = World()
    await world.run(world.announce(callback_url="https://ecs.example/callback?sig=planted3"))
    world.bus.published.clear()
    world.clock.forward(seconds=1)
    for number, minute in ((4, 30), (5, 40)):
        url = f"https://ecs.example/again?sig=planted{number}"
        record = world.announce(callback_url=url, expires_at=f"2026-01-21T13:{minute}:00Z")
        await world.deliver(world.process, record)
    for record in world.records(Topic.BATCH_UPLOADED):
        await world.deliver(world.confirm, record)
    assert [call[0][-1] for call in world.ecs.calls] == ["3", "5", "5"]
    told = [json.loads(one.value)["told"] for one in world.bus.on(Topic.BATCH_COMPLETED)]
    assert told == ["confirmed", "confirmed"]
    assert holding(world, "planted") == []


async def test_the_urls_of_an_announcement_that_nobody_answers_go_when_they_expire() -> None:
    world = World()
    await world.run(world.announce())
    world.clock.forward(seconds=1)
    await world.process.arrive(world.announce(expires_at="2026-01-21T13:30:00Z"))
    await world.jobs.drop_urls(world.ref, world.clock())
    assert len(holding(world, "planted")) == 1
    for _ in range(3):
        world.clock.forward(hours=1)
        await world.watch.poll()
    assert holding(world, "planted") == []
    assert not [key for key in world.memory.objects if key.startswith("purge/")]


async def test_a_failed_job_keeps_its_urls_only_where_it_may_begin_again() -> None:
    for policy, left in (("repeat_outcome", False), ("new_attempt", True)):
        world = World(policies={"reannouncement_after_failure": policy})
        await world.run(world.announce(HTML))
        assert decided(world).outcome == "failed"
        assert bool(holding(world, "planted")) is left
        world.clock.forward(days=8)
        await world.watch.poll()
        assert holding(world, "planted") == []


async def test_a_job_whose_urls_are_erased_is_not_begun_again_by_a_command() -> None:
    world = World()
    await world.run(world.announce(HTML))
    world.policies = JobPolicies(reannouncement_after_failure="new_attempt")
    world.restart()
    rules = {"acme": world.confirm._integrations["acme"]}
    with pytest.raises(Refused, match=r"urls_erased: .* its URLs were erased from the store after it ended"):
        await check_retry(world.jobs, world.parking, world.ref, rules, world.clock())
    operations = Operations(world._context("cli:alice"), rules, timedelta(days=7), world.parking)
    world.bus.published.clear()
    with pytest.raises(Refused, match="urls_erased"):  # as when a command is repeated, which checks nothing again
        await operations.retry(world.ref, "1")
    assert world.bus.published == []


@pytest.mark.parametrize(
    ("url", "can"), [("https://ecs.example/callback", True), ("https://ecs.example/callback?sig=planted3", False)]
)
async def test_a_refused_job_keeps_its_urls_until_it_is_notified_or_its_parts_go(url: str, *, can: bool) -> None:
    world = World()
    world.ecs.answers = [REFUSAL]
    await world.run(world.announce(callback_url=url))
    assert holding(world, "planted")
    assert (await check_notify(world.jobs, world.ref)).outcome == "completed"
    world.clock.forward(days=8)
    await world.watch.poll()
    assert holding(world, "planted") == []
    if can:
        assert (await check_notify(world.jobs, world.ref)).outcome == "completed"
    else:
        with pytest.raises(Refused, match="callback_url_erased"):
            await check_notify(world.jobs, world.ref)


async def test_receipts_of_waits_go_with_the_job_and_those_of_a_wait_that_is_not_over_later() -> None:
    world = World()
    record = world.announce()
    world.objects.fail_open += [SLOW_DOWN] * 3
    await world.handle_until_over("process", record)
    (receipt,) = (key for key in world.memory.objects if "/waiting/" in key)
    world.clock.forward(seconds=31)
    await world.due.poll()
    (copy,) = world.returned(Topic.BATCH_REQUESTED)
    # meanwhile another announcement of the job waits
    later = world.announce(expires_at="2026-01-21T13:30:00Z")
    await world.parking.park(later, "process", SLOW_DOWN)
    await world.run(copy)
    assert receipt not in world.memory.objects
    assert decided(world).outcome == "completed"
    (left,) = (key for key in world.memory.objects if "/waiting/" in key)
    world.clock.forward(hours=2)
    await world.due.poll()  # its announcement comes, is notified once more, and is over
    (copy,) = [one for one in world.returned(Topic.BATCH_REQUESTED) if one.value == later.value]
    await world.run(copy)
    await world.watch.poll()
    assert left not in world.memory.objects
    assert holding(world, "planted") == []
    assert not [key for key in world.memory.objects if key.startswith(("purge/", "due/"))]


async def test_a_wait_that_is_not_over_takes_no_parts_of_a_failed_job_before_their_time() -> None:
    """The receipt of the wait goes with the parts: before, a purge was filed for an hour after the job's end."""
    world = World()
    record = world.announce()
    world.objects.fail_put = [UploadRefused("upload_denied", "The upload was denied.")]
    await world.deliver(world.process, record)
    later = world.announce(expires_at="2026-01-21T13:30:00Z")
    await world.parking.park(later, "process", SLOW_DOWN)
    await world.parking.drop(world.ref)  # as a cancellation does: the receipt stays
    for topic, stage in ((Topic.BATCH_PROCESSED, world.upload), (Topic.BATCH_FAILED, world.confirm)):
        await world.deliver(stage, world.records(topic)[0])
    result = await world.jobs.final_result(world.ref)
    assert result is not None
    assert (decided(world).outcome, result.told) == ("failed", "confirmed")
    assert [key for key in world.memory.objects if "/waiting/" in key]
    parts = holding(world, "CPP1")
    assert parts
    world.clock.forward(days=6)
    await world.watch.poll()
    assert holding(world, "CPP1") == parts
    world.clock.forward(days=2)
    await world.watch.poll()
    assert holding(world, "CPP1") == []
    assert holding(world, "planted") == []
    assert not [key for key in world.memory.objects if "/waiting/" in key or key.startswith("purge/")]


class Failing(MemoryStore):
    """Fails at the n-th change."""

    left = 10**9

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailable("the test's store fails")

    async def create(self, key: str, data: bytes) -> bool:
        self._count()
        return await super().create(key, data)

    async def replace(self, key: str, data: bytes) -> None:
        self._count()
        await super().replace(key, data)

    async def delete(self, key: str) -> None:
        self._count()
        await super().delete(key)

    async def delete_all(self, keys: Sequence[str]) -> None:
        self._count()
        await super().delete_all(keys)


async def ended(world: World, *, fails_after: int) -> bool:
    """Let CONFIRM end a job whose store fails after so many changes, then again; return whether it failed."""
    store = Failing()
    world.memory, world.jobs.objects = store, store
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.deliver(world.process, record)
    await world.deliver(world.upload, world.records(Topic.BATCH_PROCESSED)[0])
    uploaded: Record = world.records(Topic.BATCH_UPLOADED)[0]
    store.left = fails_after
    failed = False
    try:
        await world.confirm.handle(uploaded, world.lease)
    except TransientError:
        failed = True
    store.left = 10**9
    world.restart()
    await world.confirm.handle(uploaded, world.lease)
    return failed


async def test_an_end_that_was_interrupted_anywhere_is_finished_by_the_next_run() -> None:
    undisturbed = World()
    assert not await ended(undisturbed, fails_after=10**9)
    expected = {key.partition("ended")[0] for key in undisturbed.memory.objects}
    steps = 0
    while True:
        world = World()
        failed = await ended(world, fails_after=steps)
        assert {key.partition("ended")[0] for key in world.memory.objects} - expected <= {
            f"{world.ref.work}told/0002.json"
        }
        assert holding(world, "planted") == []
        assert not [key for key in world.memory.objects if key.startswith("open/") or "/parts/" in key]
        if not failed:
            break
        steps += 1
    assert steps == 5


async def test_a_damaged_announcement_does_not_keep_the_urls_of_the_others() -> None:
    world = World()
    await world.deliver(world.process, world.announce())
    key = f"{world.ref.root}announcements/000000000000001-00ff.json"
    world.memory.objects[key] = b"not JSON"
    newest = await world.jobs.newest(world.ref)
    found = await world.jobs.drop_urls(world.ref, world.clock())
    assert found == [datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC), newest.deadline]
    del world.memory.objects[key]
    assert holding(world, "planted") == []


async def test_an_erasure_leaves_no_text_and_every_decision() -> None:
    world = World()
    world.ecs.answers = [REFUSAL]
    await world.run(world.announce(HTML))
    before = decided(world)
    assert before.message
    assert before.message in holding_text(world)
    assert holding(world, "spoken")
    count = await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=True)
    assert decided(world) == before
    assert await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=False) == count > 2
    after = decided(world)
    assert after.model_copy(update={"message": None, "body": "", "request_id": ""}) == before.model_copy(
        update={"message": None, "body": "", "request_id": ""}
    )
    assert (after.message, after.body, after.request_id) == (ERASED, "", "")
    for text in ("planted", "spoken", "4242-", before.message):
        assert holding(world, text) == []
    assert await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=False) == 0
    result = await world.jobs.final_result(world.ref)
    assert result is not None
    assert (result.told, result.status, result.code) == ("refused", 404, "callback_unknown_job")


async def test_a_damaged_object_does_not_keep_the_texts_and_urls_of_the_others() -> None:
    world = World()
    world.ecs.answers = [REFUSAL]
    await world.run(world.announce(HTML))
    for name in ("announcements/000000000000001-00ff.json", "told/0001.answer.json", "waiting/process-00.json"):
        world.memory.objects[f"{world.ref.root}{name}"] = b"not JSON"
    counted = await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=True)
    assert await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=False) == counted > 2
    assert decided(world).message == ERASED
    world.memory.objects = {key: data for key, data in world.memory.objects.items() if data != b"not JSON"}
    assert holding(world, "planted") == []


def holding_text(world: World) -> str:
    return "".join(data.decode(errors="replace") for data in world.memory.objects.values())


async def test_a_job_that_is_notified_again_after_an_erasure_still_failed_and_says_that_its_text_is_gone() -> None:
    world = World()
    await world.run(world.announce(HTML))
    (first,) = world.ecs.calls
    await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=False)
    world.clock.forward(seconds=1)
    world.bus.published.clear()
    await world.run(world.announce(HTML, expires_at="2026-01-21T13:30:00Z"))
    _, again = world.ecs.calls
    assert b'"success":false' in again[2]
    assert ERASED.encode() in again[2]
    assert again[3] != first[3]  # another body has another id


async def test_a_result_of_few_cards_is_not_recognisable_by_its_tag() -> None:
    """By the MD5 of a file with one card, an attacker could find the card by trying all card numbers."""
    world = World()
    await world.run(world.announce(CARDS))
    tag = decided(world).result_etag
    assert tag
    await erase_texts(world.jobs, [world.ref], world.clock(), dry_run=False)
    assert decided(world).result_etag == ""
    assert holding(world, tag.strip('"')) == []
    assert decided(world).body
