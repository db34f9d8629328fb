"""Known ids: forgotten by age and by number."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from support.audit_log import START

from pipeline.audit.window import KnownIds

DAY = timedelta(days=1)


def test_ids_are_forgotten_by_age() -> None:
    known = KnownIds(DAY, 100)
    known.add(["a", "b"], START)
    known.add(["c"], START + DAY)
    assert all(name in known for name in "abc")
    known.add([], START + DAY + timedelta(seconds=1))
    assert [name in known for name in "abc"] == [False, False, True]


def test_a_cut_is_told() -> None:
    known = KnownIds(DAY, 3)
    assert known.add(["a", "b"], START) == 0
    assert known.add(["c", "d", "e"], START) == 2
    assert known.add(["f"], START) == 1
    assert [name in known for name in "abcdef"] == [False, False, False, True, True, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=40), st.integers(1, 12))
def test_there_are_never_too_many_and_the_latest_are_there(groups: list[tuple[int, int]], most: int) -> None:
    known, added, now = KnownIds(timedelta(hours=1), most), list[tuple[str, int]](), 0
    for count, minutes in groups:
        now += minutes
        ids = [f"{len(added) + n}" for n in range(count)]
        added += [(name, now) for name in ids]
        known.add(ids, START + timedelta(minutes=now))
        young = [name for name, at in added if at >= now - 60]
        assert len(known) == min(most, len(young))
        assert all(name in known for name in young[-most:])
