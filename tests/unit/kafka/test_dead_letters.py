"""Dead letters: what is written can be read back, and replayed for the group that could not handle it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.contracts import Headers, OutgoingRecord, Record, RecordPosition, Topic, first_values, is_for
from pipeline.errors import PermanentError, PoisonRecord
from pipeline.kafka import DeadLetters, RecordTooLarge, read_dead_letter
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics

AT = datetime(2026, 1, 22, 12, tzinfo=UTC)
HEADERS: Headers = (("ce_id", b"a"), ("pipeline_integration", b"acme"), ("x-signature", b"\xff"), ("x-signature", b"2"))
RECORD = Record(Topic.EVENTS_LOGIN, 3, 41, "acme/credential/1", b"\x00{}", HEADERS, 1_769_083_200_000, attempt=5)


async def dead_letter(
    record: Record, *, group: str = "billing", position: int = 7, publisher: MemoryPublisher | None = None
) -> Record:
    """Return a record as stored in the dead-letter topic of a group that could not handle it."""
    publisher = publisher or MemoryPublisher()
    letters = DeadLetters(
        publisher,
        group=group,
        metrics=Metrics(),
        clock=lambda: AT,
        address=lambda _: f"{group}.dead-letter",
    )
    await letters.write(record, PermanentError("handler_poison", "no such account"))
    (out,) = publisher.published
    return Record(out.topic, 0, position, out.key, out.value, out.headers, 0)


async def test_what_was_written_is_read_back() -> None:
    letter = read_dead_letter(await dead_letter(RECORD))
    assert replace(letter.record, attempt=5) == RECORD
    assert letter.position == RecordPosition("billing.dead-letter", 0, 7)
    assert (letter.group, letter.code, letter.message, letter.attempts) == (
        "billing",
        "handler_poison",
        "no such account",
        5,
    )
    assert (letter.at, letter.value_missing, letter.integration) == (AT, False, "acme")


async def test_the_reason_is_masked_before_it_is_cut() -> None:
    """A cut may leave a piece of a card number that no pattern knows."""
    publisher = MemoryPublisher()
    letters = DeadLetters(publisher, group="billing", metrics=Metrics(), address=lambda _: "billing.dead-letter")
    message = f"{'no ' * 329}4111111111111111 at https://bank.example/a?sig=planted"
    await letters.write(RECORD, PermanentError("handler_poison", message))
    (letter,) = publisher.published
    reason = first_values(letter.headers)["dlq_message"]
    assert (len(reason), reason[980:]) == (1000, " no no [digits] at h")


async def test_a_letter_that_was_written_twice_has_one_id_and_every_other_has_its_own() -> None:
    first = read_dead_letter(await dead_letter(RECORD, position=7))
    second = read_dead_letter(await dead_letter(RECORD, position=8))
    assert first.id == second.id
    others = [
        await dead_letter(RECORD, group="fraud"),
        await dead_letter(replace(RECORD, offset=42)),
        await dead_letter(replace(RECORD, partition=2)),
        await dead_letter(replace(RECORD, topic=Topic.EVENTS_FEES)),
        await dead_letter(replace(RECORD, timestamp_ms=0)),
    ]
    assert len({first.id, *(read_dead_letter(one).id for one in others)}) == 6


async def test_a_replay_is_the_record_for_the_one_group() -> None:
    """Without reasons; it says from where, and for whom."""
    replayed = read_dead_letter(await dead_letter(RECORD)).replay()
    own = (("replayed_from", b"billing.dead-letter/0/7"), ("replay_group", b"billing"))
    assert replayed == OutgoingRecord(RECORD.topic, RECORD.key, RECORD.value, (*HEADERS, *own))
    again = replace(RECORD, headers=replayed.headers)
    assert [is_for(again, group) for group in ("billing", "fraud")] == [True, False]


async def test_a_record_that_failed_again_is_another_letter_whose_replay_names_the_new_one() -> None:
    first = read_dead_letter(await dead_letter(RECORD))
    retried = (("retry_group", b"billing"), ("retry_count", b"3"), ("retry_first_at", b"x"), ("retry_code", b"y"))
    back = replace(RECORD, offset=99, headers=(*first.replay().headers, *retried))
    second = read_dead_letter(await dead_letter(back, position=9))
    assert second.id != first.id
    own = (("replayed_from", b"billing.dead-letter/0/9"), ("replay_group", b"billing"))
    assert second.replay().headers == (*HEADERS, *own)


async def test_a_dead_letter_of_dead_letters_is_replayed_to_the_dead_letter_topic_with_its_first_reasons() -> None:
    inner = await dead_letter(RECORD)
    letter = read_dead_letter(await dead_letter(inner, group="repair", position=2))
    assert (letter.group, letter.record.topic, letter.record.offset) == ("repair", "billing.dead-letter", 7)
    replayed = letter.replay()
    assert (replayed.topic, replayed.headers[: len(inner.headers)]) == ("billing.dead-letter", inner.headers)
    there = Record(replayed.topic, 0, 8, replayed.key, replayed.value, replayed.headers, 0)
    assert read_dead_letter(there).id == read_dead_letter(inner).id


async def test_a_notice_cannot_be_replayed() -> None:
    sizes = []

    async def refuse(record: OutgoingRecord) -> None:
        sizes.append(len(record.value))
        if record.value:
            raise RecordTooLarge("record_too_large", "too large")

    letter = read_dead_letter(await dead_letter(RECORD, publisher=MemoryPublisher(refuse)))
    assert sizes == [3, 0]
    assert (letter.value_missing, letter.record.value, letter.record.offset) == (True, b"", 41)
    with pytest.raises(PermanentError, match="events rewind") as caught:
        letter.replay()
    assert caught.value.code == "dead_letter_cut"


async def test_the_integration_is_that_of_the_header_or_the_beginning_of_the_key() -> None:
    bare = replace(RECORD, headers=())
    assert read_dead_letter(await dead_letter(bare)).integration == "acme"
    assert read_dead_letter(await dead_letter(replace(bare, key="k"))).integration is None


@pytest.mark.parametrize("missing", ["topic", "partition", "offset", "timestamp", "group", "code", "message", "at"])
async def test_a_record_that_no_consumer_wrote_is_poison(missing: str) -> None:
    letter = await dead_letter(RECORD)
    without = tuple(header for header in letter.headers if header[0] != f"dlq_{missing}")
    for headers in (without, (), tuple((name, b"x") for name, _ in letter.headers)):
        with pytest.raises(PoisonRecord) as caught:
            read_dead_letter(replace(letter, headers=headers))
        assert caught.value.code == "dead_letter_unreadable"


async def test_a_time_without_zone_is_utc() -> None:
    letter = await dead_letter(RECORD)
    headers = tuple((name, b"2026-01-22T12:00:00" if name == "dlq_at" else value) for name, value in letter.headers)
    assert read_dead_letter(replace(letter, headers=headers)).at == AT
