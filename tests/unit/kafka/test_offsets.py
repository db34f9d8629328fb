from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.partition import OffsetTracker


def test_nothing_may_be_committed_before_the_first_record() -> None:
    tracker = OffsetTracker()
    assert (tracker.to_commit, tracker.next_offset, tracker.span, tracker.held_bytes) == (None, None, 0, 0)


def test_a_record_is_taken_once() -> None:
    tracker = OffsetTracker()
    assert tracker.take(5, 1)
    assert not tracker.take(5, 1)
    assert not tracker.take(4, 1)
    assert tracker.take(7, 1)


def test_only_records_in_work_can_finish() -> None:
    tracker = OffsetTracker()
    with pytest.raises(KeyError):
        tracker.finish(0)


@given(st.data())
def test_the_lowest_unfinished_offset_is_committed(data: st.DataObject) -> None:
    """Law: no unfinished record lies below what is committed, no record is forgotten, commits never go back.

    For any order of finishing, with any gaps between offsets.
    """
    gaps = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=30))
    offsets = [sum(gaps[: count + 1]) for count in range(len(gaps))]
    steps = data.draw(st.permutations([("take", offset) for offset in offsets] + [("finish", o) for o in offsets]))
    tracker, taken, finished, committed = OffsetTracker(), [], set(), -1
    waiting = list(offsets)
    for step, offset in steps:
        if step == "take" and waiting:
            taken.append(waiting.pop(0))
            assert tracker.take(taken[-1], 10)
        elif step == "finish" and offset in taken and offset not in finished:
            tracker.finish(offset)
            finished.add(offset)
        if not taken:
            continue
        unfinished = [one for one in taken if one not in finished]
        expected = min(unfinished, default=taken[-1] + 1)
        assert tracker.to_commit == expected >= committed
        assert tracker.next_offset == taken[-1] + 1
        assert tracker.span == tracker.next_offset - expected
        assert tracker.held_bytes == 10 * len(unfinished)
        committed = expected
