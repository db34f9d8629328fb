from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.subscriber.window import RepeatWindow

NOON = 1_769_083_200_000
Entry = tuple[int, bytes, int]


def rule(log: Sequence[Entry], milliseconds: int, records: int) -> list[bool]:
    """The rule as docs/reference/subscribers.md states it, literally."""
    repeats = []
    for number, (offset, ident, at) in enumerate(log):
        before = [entry for entry in log[:number] if entry[1] == ident]
        last = before[-1] if before else None
        repeats.append(last is not None and offset - last[0] <= records and at - last[2] <= milliseconds)
    return repeats


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Offsets with gaps, few ids, times that run forwards and backwards."""
    entries, offset, at = [], draw(st.integers(0, 5)), NOON
    for _ in range(draw(st.integers(0, 60))):
        offset += draw(st.sampled_from([1, 1, 1, 2, 9]))
        at += draw(st.sampled_from([0, 0, 1, 400, 1000, 1001, -300, -2000]))
        entries.append((offset, draw(st.sampled_from([b"a", b"b", b"c", b"d"])), at))
    return entries


@given(logs(), st.sampled_from([0, 1, 3, 8, 50]), st.sampled_from([0, 1, 1000]))
def test_a_window_decides_as_the_rule_says(log: list[Entry], records: int, milliseconds: int) -> None:
    window = RepeatWindow(milliseconds / 1000, records)
    assert [window.repeats(ident, offset, at) for offset, ident, at in log] == rule(log, milliseconds, records)


@given(logs(), st.sampled_from([0, 1, 3, 8]), st.integers(0, 59))
def test_a_window_that_saw_the_last_records_alone_decides_the_same(log: list[Entry], records: int, cut: int) -> None:
    """What a restart reads again is enough: the last ``records`` offsets before the first record."""
    first = log[cut][0] if cut < len(log) else 0
    window = RepeatWindow(1.0, records)
    for offset, ident, at in log[:cut]:
        if offset >= first - records:
            window.repeats(ident, offset, at)
    rest = [window.repeats(ident, offset, at) for offset, ident, at in log[cut:]]
    assert rest == rule(log, 1000, records)[cut:]


@pytest.mark.parametrize(("distance", "repeat"), [(99, True), (100, True), (101, False)])
def test_the_number_counts_offsets_and_includes_its_end(*, distance: int, repeat: bool) -> None:
    window = RepeatWindow(60, 100)
    window.repeats(b"a", 1000, NOON)
    assert window.repeats(b"a", 1000 + distance, NOON) is repeat


@pytest.mark.parametrize(("age_ms", "repeat"), [(59_999, True), (60_000, True), (60_001, False), (-5000, True)])
def test_the_time_includes_its_end_and_a_younger_first_is_within(*, age_ms: int, repeat: bool) -> None:
    window = RepeatWindow(60, 100)
    window.repeats(b"a", 1, NOON)
    assert window.repeats(b"a", 2, NOON + age_ms) is repeat


def test_a_repeat_renews_the_window() -> None:
    """The last record of the id counts, a repeat or not."""
    window = RepeatWindow(60, 100)
    assert [window.repeats(b"a", number, NOON + 50_000 * number) for number in range(4)] == [False, True, True, True]


def test_a_broker_without_times_leaves_the_number() -> None:
    window = RepeatWindow(60, 2)
    assert [window.repeats(ident, number, -1) for number, ident in enumerate([b"a", b"a", b"b", b"c", b"d", b"a"])] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_time_that_no_clock_says_does_no_harm() -> None:
    window = RepeatWindow(60, 10)
    assert [window.repeats(b"a", 1, 2**63 - 1), window.repeats(b"a", 2, NOON)] == [False, True]


def test_memory_is_bounded_by_the_number() -> None:
    window = RepeatWindow(3600, 800)
    for number in range(10_000):
        window.repeats(b"%d" % number, number, NOON)
    assert len(window) <= 900 + 1


def test_ids_forgotten_by_number_before_their_time_are_counted() -> None:
    window = RepeatWindow(60, 8)
    for number in range(30):
        window.repeats(b"%d" % number, number, NOON + number)
    assert window.cuts == 30 - len(window)


def test_ids_forgotten_after_their_time_are_no_cuts() -> None:
    window = RepeatWindow(1, 8)
    for number in range(30):
        window.repeats(b"%d" % number, number, NOON + 1001 * number)
    assert window.cuts == 0


def test_without_a_number_nothing_is_a_repeat() -> None:
    window = RepeatWindow(60, 0)
    assert [window.repeats(b"a", number, NOON) for number in range(3)] == [False, False, False]


def test_a_long_id_is_never_taken_for_another() -> None:
    """Long ids are kept as a hash; a sender who names an event like the hash of another must not hide it."""
    window = RepeatWindow(60, 100)
    long = b"x" * 33
    assert not window.repeats(long, 0, 0)
    assert not window.repeats(hashlib.blake2b(long, digest_size=16).digest(), 1, 0)
    assert not window.repeats(hashlib.blake2b(long, digest_size=33).digest(), 2, 0)
    assert not window.repeats(b"x" * 32, 3, 0)
    assert window.repeats(long, 4, 0)
