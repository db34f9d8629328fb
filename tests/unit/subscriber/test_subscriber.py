from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs
from support.fake_log import NOON_MS, FakeLog
from support.subscriber_bench import QUICK, Notes, count, kill, running, subscriber_of, until, with_tries

from pipeline.errors import FatalError
from pipeline.kafka import BrokerUnavailable
from pipeline.subscriber import Event, KafkaSettings, Poison, Retry, Subscriber


class Fee(BaseModel):
    amount: int


async def test_each_event_is_handled_by_the_handler_of_its_type(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    seen: list[int] = []

    @subscriber.on("acme.fee", model=Fee)
    async def handle(event: Event[Fee]) -> None:
        seen.append(event.data.amount)

    subscriber.on_any(notes)
    log.append("1", kind="acme.fee", value=b'{"amount": 7}')
    log.append("2", kind="acme.other")
    async with running(subscriber):
        await until(lambda: log.committed == {0: 2})
    assert (seen, notes.ids()) == ([7], ["2"])


async def test_a_type_without_handler_is_passed_over_and_counted(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on("acme.fee")(notes)
    log.append("1", kind="acme.other", value=b"no json")
    log.append("2", kind="acme.fee")
    async with running(subscriber):
        await until(lambda: log.committed == {0: 2})
    assert notes.ids() == ["2"]
    assert count(subscriber, "subscriber_passed_over_total") == 1
    assert log.dead_letters.published == []


async def test_a_repeat_is_not_handled_again_and_counted(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    for ident in "aabab":
        log.append(ident)
    async with running(subscriber):
        await until(lambda: log.committed == {0: 5})
    assert notes.ids() == ["a", "b"]
    assert count(subscriber, "subscriber_repeats_total") == 3


async def test_a_repeat_is_known_after_a_restart(log: FakeLog, notes: Notes) -> None:
    """The window is read again from the log before the first record."""
    log.append("a")
    for _ in range(2):
        subscriber = subscriber_of(log)
        subscriber.on_any(notes)
        async with running(subscriber):
            await until(lambda: log.committed.get(0) == log.records[0][-1].offset + 1)
        log.append("a")
        log.append("b")
    assert notes.ids() == ["a", "b"]
    assert log.read == [[], [0]]


async def test_what_a_crash_brings_again_is_no_repeat(log: FakeLog, notes: Notes) -> None:
    """The same offset, handled and not committed: handled again, since nobody can know that it was."""
    log.append("a")
    first = subscriber_of(log)
    first.on_any(notes)
    log.dead = True
    task = asyncio.create_task(first.run())
    await until(lambda: notes.ids() == ["a"])
    await kill(log, task)
    log.dead = False
    second = subscriber_of(log)
    second.on_any(notes)
    async with running(second):
        await until(lambda: log.committed == {0: 1})
    assert notes.ids() == ["a", "a"]
    assert count(second, "subscriber_repeats_total") == 0


async def test_a_repeat_that_comes_while_the_first_is_tried_again_waits_for_nothing(log: FakeLog) -> None:
    """It is passed over, yet the offset stays before the first: a crash brings both again."""
    release = asyncio.Event()

    async def act(event: Event[Any]) -> None:
        if event.id == "a" and not release.is_set():
            raise Retry

    notes = Notes(act)
    subscriber = subscriber_of(log, with_tries(1000))
    subscriber.on_any(notes)
    for ident in "aab":
        log.append(ident, key=ident)
    async with running(subscriber):
        await until(lambda: notes.ids() == ["b"])
        assert count(subscriber, "subscriber_repeats_total") == 1
        assert log.committed.get(0, 0) == 0
        release.set()
        await until(lambda: log.committed == {0: 3})
    assert notes.ids() == ["b", "a"]


async def test_a_repeat_of_a_dead_letter_is_not_handled(log: FakeLog) -> None:
    """The group has the first one among its dead letters, so a replay can bring it back."""

    async def act(event: Event[Any]) -> None:
        if event.id == "a":
            raise Poison("never")

    notes = Notes(act)
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    for ident in "aab":
        log.append(ident)
    async with running(subscriber):
        await until(lambda: log.committed == {0: 3})
    assert [event.id for event in notes.begun] == ["a", "b"]
    assert len(log.dead_letters.published) == 1


async def test_a_first_that_retention_took_makes_no_repeat(log: FakeLog, notes: Notes) -> None:
    log.append("a")
    log.committed[0] = 1
    log.records[0] = []
    log.append("a", skip=1)
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    async with running(subscriber):
        await until(lambda: log.committed == {0: 2})
    assert notes.ids() == ["a"]


async def test_a_kept_partition_keeps_its_window(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    log.append("a")
    async with running(subscriber):
        await until(lambda: log.committed == {0: 1})
        await log.members[0].revoke()
        await log.members[0].assign(0)
        log.append("a")
        log.append("b")
        await until(lambda: log.committed == {0: 3})
    assert notes.ids() == ["a", "b"]
    assert len(log.read) == 1


async def test_a_partition_that_was_away_reads_its_window_again(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    log.append("a")
    async with running(subscriber):
        await until(lambda: log.committed == {0: 1})
        await log.members[0].revoke()
        await log.members[0].assign(0, generation=9)  # others had it in between
        log.append("a")
        log.append("b")
        await until(lambda: log.committed == {0: 3})
    assert notes.ids() == ["a", "b"]
    assert log.read == [[], [0]]


async def test_a_window_that_cannot_be_read_is_read_again(log: FakeLog, notes: Notes) -> None:
    log.read_errors.append(BrokerUnavailable("broker_unavailable", "gone"))
    log.append("a")
    log.append("a")
    log.committed[0] = 1
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    async with running(subscriber):
        await until(lambda: log.committed == {0: 2})
    assert notes.ids() == []


async def test_ids_forgotten_by_number_are_counted(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log, QUICK.model_copy(update={"repeat_records": 8}))
    subscriber.on_any(notes)
    for number in range(30):
        log.append(f"{number}", at_ms=NOON_MS + number)
    async with running(subscriber):
        await until(lambda: log.committed == {0: 30})
    window = count(subscriber, "subscriber_window_ids")
    assert window <= 10
    assert count(subscriber, "subscriber_window_cuts_total") == 30 - window


async def test_an_event_is_tried_so_often_and_then_a_dead_letter(log: FakeLog) -> None:
    """Value and key unchanged, the reason in headers; others of its key come after it."""

    async def act(event: Event[Any]) -> None:
        if event.id == "bad":
            raise ValueError("card 4111111111111111")

    notes = Notes(act)
    subscriber = subscriber_of(log, with_tries(3))
    subscriber.on_any(notes)
    log.append("bad", key="card/1", value=b'{"a": 1}')
    log.append("next", key="card/1")
    with capture_logs() as lines:
        async with running(subscriber):
            await until(lambda: log.committed == {0: 2})
    [letter] = log.dead_letters.published
    headers = dict(letter.headers)
    assert [event.attempt for event in notes.begun] == [1, 2, 3, 1]
    assert (letter.topic, letter.key, letter.value) == ("fraud.dead-letter", "card/1", b'{"a": 1}')
    assert headers["dlq_code"] == b"attempts_exhausted"
    assert headers["dlq_message"].startswith(b"Attempt 3 was the last: ValueError at test_subscriber.py:")
    assert "4111" not in f"{lines}{letter.headers}"


async def test_step_up_challenges_have_dead_letters_of_their_own(notes: Notes) -> None:
    log = FakeLog("card-events.stepup")
    subscriber = subscriber_of(log)
    subscriber.on("weavr.stepup")(notes)
    log.append("1", kind="weavr.stepup", value=b"no json")
    async with running(subscriber):
        await until(lambda: log.committed == {0: 1})
    assert [letter.topic for letter in log.dead_letters.published] == ["fraud.stepup.dead-letter"]
    assert notes.begun == []


async def test_a_missing_topic_is_fatal_and_the_remedy_is_named(log: FakeLog, notes: Notes) -> None:
    log.absent = ["fraud.dead-letter"]
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    with pytest.raises(FatalError, match=r"fraud\.dead-letter\. `pipeline topics create --group fraud`"):
        await subscriber.run()


async def test_brokers_that_are_away_are_waited_for_until_a_stop(notes: Notes) -> None:
    asked = asyncio.Event()

    class Away(FakeLog):
        async def missing(self, topics: object) -> list[str]:
            assert topics
            asked.set()
            raise BrokerUnavailable("broker_unavailable", "gone")

    subscriber = subscriber_of(Away())
    subscriber.on_any(notes)
    async with running(subscriber):
        await asked.wait()
    assert not subscriber.ready


async def test_a_stop_before_the_start_ends_it_at_once(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    subscriber.stop()
    await subscriber.run()
    assert log.members == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_in_order(log: FakeLog, number: signal.Signals) -> None:
    """The running handler finishes, and its offset is committed."""
    before = signal.getsignal(number)

    async def act(_event: Event[Any]) -> None:
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.01)

    notes = Notes(act)
    subscriber = subscriber_of(log, QUICK.model_copy(update={"signals": True}))
    subscriber.on_any(notes)
    log.append("1")
    try:
        await asyncio.wait_for(subscriber.run(), 5)
    finally:
        signal.signal(number, before)
    assert (notes.ids(), log.committed) == (["1"], {0: 1})


async def test_it_is_ready_when_it_has_joined(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    assert (subscriber.ready, subscriber.alive) == (False, True)
    async with running(subscriber):
        await until(lambda: subscriber.ready)
        assert subscriber.alive


async def test_it_runs_once_and_not_without_handlers(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    with pytest.raises(RuntimeError, match="no handler"):
        await subscriber.run()
    subscriber.on_any(notes)
    async with running(subscriber):
        pass
    with pytest.raises(RuntimeError, match="runs once"):
        await subscriber.run()


def test_what_it_needs_in_the_cluster_follows_from_its_topics() -> None:
    plain = Subscriber("127.0.0.1:1", group="fraud", topics=["fees", "managed-cards"])
    stepup = Subscriber("127.0.0.1:1", group="fraud", topics=["stepup", "fees"])
    assert [spec.topic for spec in plain.topics_needed()] == ["fraud.dead-letter"]
    assert [spec.topic for spec in stepup.topics_needed()] == ["fraud.dead-letter", "fraud.stepup.dead-letter"]


def test_the_cluster_is_named_once() -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(TypeError, match="one of the two"):
        Subscriber("127.0.0.1:1", group="fraud", topics=["fees"], kafka=kafka)
    with pytest.raises(TypeError, match="one of the two"):
        Subscriber(group="fraud", topics=["fees"])


@pytest.mark.parametrize("topics", ["fees", []])
def test_topics_are_a_list(topics: Any) -> None:
    with pytest.raises(ValueError, match="list"):
        Subscriber("127.0.0.1:1", group="fraud", topics=topics)
