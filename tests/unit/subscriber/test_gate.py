from __future__ import annotations

from collections.abc import AsyncIterator

from pipeline.contracts import Headers, Record
from pipeline.observability import SubscriberMetrics
from pipeline.subscriber.gate import RepeatGate, RepeatGates


class Fees:
    """Handles fees."""

    def handles(self, event_type: str) -> bool:
        return event_type == "acme.fee"


def record(offset: int, *headers: tuple[str, bytes]) -> Record:
    return Record("webhook-events.acme", 0, offset, "k", b"", headers, 1_000)


def fee(ident: bytes) -> Headers:
    return ("ce_id", ident), ("ce_type", b"acme.fee")


def gate_over(*log: Record, metrics: SubscriberMetrics | None = None) -> RepeatGate:
    async def read_back(first: Record) -> AsyncIterator[Record]:
        for one in log:
            assert one.offset < first.offset
            yield one

    gates = RepeatGates(
        Fees(), read_back, seconds=60, records=100, group="fraud", metrics=metrics or SubscriberMetrics()
    )
    return gates("webhook-events.acme", 0)


async def test_what_was_read_back_makes_repeats() -> None:
    gate = gate_over(record(0, *fee(b"a")), record(1, *fee(b"b")))
    await gate.open(record(2, *fee(b"c")))
    assert [gate.admit(record(2, *fee(b"c"))), gate.admit(record(3, *fee(b"a")))] == [True, False]


async def test_an_opening_that_failed_half_way_leaves_nothing_behind() -> None:
    """Read again from the start, the same records are no repeats of themselves, and none is counted twice."""
    metrics = SubscriberMetrics()
    gate = gate_over(record(0, *fee(b"a")), metrics=metrics)
    for _ in range(2):
        await gate.open(record(1, *fee(b"b")))
    assert gate.admit(record(1, *fee(b"b")))
    labels = {"stage": "fraud", "topic": "webhook-events.acme", "partition": "0"}
    assert metrics.registry.get_sample_value("pipeline_subscriber_window_ids", labels) == 2


def test_types_without_handler_are_passed_over_and_known() -> None:
    """A repeat is one whether its type is handled or not: the window depends on the log alone."""
    gate = gate_over()
    other = (("ce_id", b"a"), ("ce_type", b"acme.other"))
    assert [gate.admit(record(0, *other)), gate.admit(record(1, *fee(b"a")))] == [False, False]


def test_a_record_without_an_id_is_handed_on_and_never_a_repeat() -> None:
    gate = gate_over()
    nameless = ("ce_type", b"acme.fee")
    assert [gate.admit(record(number, nameless)) for number in range(2)] == [True, True]
    assert gate.admit(record(2, ("ce_id", b""), nameless))


def test_a_record_without_a_type_is_handed_on_once() -> None:
    gate = gate_over()
    assert [gate.admit(record(number, ("ce_id", b"a"))) for number in range(2)] == [True, False]


def test_the_first_header_of_a_name_counts() -> None:
    gate = gate_over()
    assert gate.admit(record(0, ("ce_id", b"a"), ("ce_id", b"b"), ("ce_type", b"acme.fee")))
    assert gate.admit(record(1, *fee(b"b")))
    assert not gate.admit(record(2, *fee(b"a")))


def test_ids_are_bytes() -> None:
    """Neither letter case nor what is no UTF-8 makes two ids one."""
    gate = gate_over()
    assert [gate.admit(record(number, *fee(one))) for number, one in enumerate([b"\xff", b"\xfe", b"a", b"A"])] == [
        True
    ] * 4


def replay(ident: bytes, replayed_from: bytes, group: bytes = b"fraud") -> Headers:
    return *fee(ident), ("replayed_from", replayed_from), ("replay_group", group)


def test_a_replayed_dead_letter_is_handled_although_its_event_came_before_and_its_second_copy_is_not() -> None:
    gate = gate_over()
    log = [fee(b"a"), replay(b"a", b"fraud.dead-letter/0/7"), replay(b"a", b"fraud.dead-letter/0/7")]
    log += [replay(b"a", b"fraud.dead-letter/0/9"), fee(b"a")]
    assert [gate.admit(record(number, *headers)) for number, headers in enumerate(log)] == [
        True,
        True,
        False,
        True,
        False,
    ]


async def test_read_back_a_replay_is_known_by_its_dead_letter_and_that_of_another_group_not_at_all() -> None:
    """So two members agree, whether they saw the replay or read it back."""
    gate = gate_over(
        record(0, *replay(b"a", b"fraud.dead-letter/0/7")),
        record(1, *replay(b"b", b"billing.dead-letter/0/7", b"billing")),
    )
    await gate.open(record(2, *fee(b"a")))
    log = [fee(b"a"), fee(b"b"), replay(b"a", b"fraud.dead-letter/0/7")]
    assert [gate.admit(record(number, *headers)) for number, headers in enumerate(log, 2)] == [True, True, False]


async def test_of_two_replays_the_last_says_which_dead_letter_it_is() -> None:
    gate = gate_over()
    await gate.open(record(0, *fee(b"a")))
    first, again = b"fraud.dead-letter/0/7", b"fraud.dead-letter/0/9"
    twice = (*replay(b"a", first), *replay(b"a", again)[2:])
    log = [fee(b"a"), replay(b"a", first), twice, twice]
    assert [gate.admit(record(number, *headers)) for number, headers in enumerate(log)] == [True, True, True, False]
