"""The books: outcomes, findings, sums, the file, and order per entity."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sandbox.weavr import Attempt, Broken, Entry, Totals, order_findings, read_ledger, write_entry
from pipeline.sandbox.weavr.events import Expected, SendOutcome


def entry(
    *deliveries: list[int | None], expected: Expected = "accepted", broken: Broken | None = None, index: int = 0
) -> Entry:
    attempts = [[Attempt(100.0 + index, 0.5, status) for status in delivery] for delivery in deliveries]
    return Entry(
        index, "/login/watch", "login", "login/1", 1, "r", f"id-{index}", expected, broken=broken, deliveries=attempts
    )


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([204], "accepted"),
        ([503, None, 200], "accepted"),
        ([401], "refused"),
        ([503, 429], "refused"),
        ([302], "refused"),
        ([503] * 6, "given up"),
        ([None] * 6, "given up"),
    ],
)
def test_the_last_answer_decides(answers: list[int | None], outcome: SendOutcome) -> None:
    assert entry(answers).outcomes == [outcome]


@pytest.mark.parametrize(
    ("expected", "answers"),
    [("accepted", [503, 204]), ("quarantined", [204]), ("refused", [401]), ("unverified", [503] * 6)],
)
def test_what_is_as_it_must_be_is_no_finding(expected: Expected, answers: list[int | None]) -> None:
    assert entry(answers, expected=expected).finding() is None


@pytest.mark.parametrize(
    ("expected", "deliveries"),
    [
        ("accepted", [[401]]),
        ("accepted", [[503] * 6]),
        ("accepted", [[204], [401]]),
        ("quarantined", [[400]]),
        ("refused", [[204]]),
        ("refused", [[503] * 6]),
        ("unverified", [[401]]),
        ("unverified", [[503, 500, 503, 503, 503, 503]]),
    ],
)
def test_everything_else_is_one(expected: Expected, deliveries: list[list[int | None]]) -> None:
    assert entry(*deliveries, expected=expected).finding() is not None


def test_a_finding_names_event_kind_of_fault_and_answers() -> None:
    found = entry([503, None, 401], expected="quarantined", broken=Broken.UNKNOWN_PATH, index=7).finding()
    assert found == "event 7 (/login/watch, unknown-path) must be quarantined; answers: 503, none, 401"


def test_sums_count_deliveries_and_attempts() -> None:
    totals = Totals()
    for one in (
        entry([503, 204], [204]),
        entry([204], expected="quarantined", broken=Broken.MISFIT),
        entry([401], expected="refused", broken=Broken.STALE),
        entry([None, 503, 503, 503, 503, 503], expected="unverified", broken=Broken.CUT),
    ):
        totals.add(one)
    assert totals.view() == {
        "events": 4,
        "sent": 5,
        "requests": 11,
        "repeats": 1,
        "answers": {"204": 3, "401": 1, "503": 6, "none": 1},
        "accepted": 3,
        "quarantined": 1,
        "refused": 1,
        "given_up": 1,
        "broken": {"body-cut": 1, "misfit": 1, "stale": 1},
        "wrong": 1,
        "findings": ["event 0 (/login/watch, body-cut) must be unverified; answers: none, 503, 503, 503, 503, 503"],
    }


def test_only_the_first_findings_are_kept() -> None:
    totals = Totals()
    for _ in range(50):
        totals.add(entry([401]))
    assert (totals.wrong, len(totals.findings)) == (50, 20)


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    entries = [entry([503, None, 204], [204]), entry([401], expected="refused", broken=Broken.STALE)]
    file = tmp_path / "ledger.jsonl"
    with file.open("w", encoding="utf-8") as opened:
        for one in entries:
            write_entry(opened, one)
    assert list(read_ledger(file)) == entries


class TestOrder:
    def test_events_sent_one_after_the_other_must_stand_so(self) -> None:
        """By the offset of the first record of each."""
        entries = [entry([204], index=number) for number in range(3)]
        assert order_findings(entries, {"id-0": 5, "id-1": 6, "id-2": 9}) == []
        assert order_findings(entries, {"id-0": 5, "id-1": 9, "id-2": 6}) == [
            "event 2 of login/1 stands before one that was accepted before it was sent"
        ]

    def test_what_was_under_way_at_the_same_time_may_stand_either_way(self) -> None:
        """A retry that was accepted only after a younger one had been sent."""
        early, late = entry([503, 204], index=0), entry([204], index=1)
        early.deliveries[0][1] = Attempt(110.0, 0.5, 204)
        for offsets in ({"id-0": 1, "id-1": 2}, {"id-0": 2, "id-1": 1}):
            assert order_findings([early, late], offsets) == []

    def test_others_and_those_without_an_offset_are_left_out(self) -> None:
        """Refused ones, broken ones, those of another entity."""
        refused, other = entry([401], index=0), entry([204], index=1)
        other.entity = "login/2"
        assert order_findings([refused, other, entry([204], index=2)], {"id-0": 9, "id-1": 8, "id-2": 1}) == []
