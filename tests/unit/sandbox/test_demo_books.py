"""The books of the second act convict whatever does not balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from pipeline.sandbox.demo.books import NO_CATEGORY, Row, Topics, check, rows, total
from pipeline.sandbox.demo.subscribing import Seen
from pipeline.sandbox.weavr import EXPECTED, Attempt, Broken, Entry

CARD = "/managed_cards/expiries/watch"


def entry(index: int, *answers: list[int | None], path: str = CARD, broken: Broken | None = None) -> Entry:
    category = {"/login/watch": "login", CARD: "managed-cards"}.get(path, "")
    deliveries = [[Attempt(100.0 + index, 0.5, status) for status in attempts] for attempts in answers]
    return Entry(
        index,
        path,
        category,
        f"{category}/1",
        0 if broken else index,
        "",
        f"id-{index}",
        EXPECTED[broken] if broken else "accepted",
        broken=broken,
        deliveries=deliveries,
    )


def sent() -> list[Entry]:
    """Three right events, one of them repeated, and one of each kind of broken ones."""
    return [
        entry(1, [204], [204]),
        entry(2, [204]),
        entry(3, [204], path="/login/watch"),
        entry(4, [401], broken=Broken.STALE),
        entry(5, [503] * 6, broken=Broken.WRONG_KEY),
        entry(6, [204], broken=Broken.MISFIT),
        entry(7, [204], path="/nothing/watch", broken=Broken.UNKNOWN_PATH),
    ]


def came() -> Topics:
    """What must come out of the topics then."""
    return Topics(
        seen={
            "login": Seen(Counter({"id-3": 1}), {"id-3": (0, 0)}),
            "managed-cards": Seen(Counter({"id-1": 1, "id-2": 1}), {"id-1": (2, 0), "id-2": (2, 1)}),
        },
        repeats={"managed-cards": 1, "login": 0},
        quarantined=[("id-6", CARD), ("id-7", "/nothing/watch")],
    )


def test_books_that_balance_are_not_accused() -> None:
    assert check(sent(), came()) == []


def test_each_category_has_a_row_and_unknown_paths_have_one_too() -> None:
    found = rows(sent(), came())
    assert found == [
        Row("login", sent=1, accepted=1, refused=0, quarantined=0, repeats=0, delivered=1),
        Row("managed-cards", sent=6, accepted=4, refused=2, quarantined=1, repeats=1, delivered=2),
        Row(NO_CATEGORY, sent=1, accepted=1, refused=0, quarantined=1, repeats=0, delivered=0),
    ]
    assert total(found) == Row("total", sent=8, accepted=6, refused=2, quarantined=2, repeats=1, delivered=3)


def lost(topics: Topics) -> None:
    del topics.seen["login"].times["id-3"]


def twice(topics: Topics) -> None:
    topics.seen["login"].times["id-3"] = 2


def refused_but_handled(topics: Topics) -> None:
    topics.seen["managed-cards"].times["id-4"] = 1


def out_of_order(topics: Topics) -> None:
    topics.seen["managed-cards"].positions |= {"id-1": (2, 9)}


def torn_apart(topics: Topics) -> None:
    topics.seen["managed-cards"].positions |= {"id-2": (1, 1)}


def untyped(topics: Topics) -> None:
    topics.seen["login"].odd.append("id-3")


def repeat_not_found(topics: Topics) -> None:
    assert isinstance(topics.repeats, dict)
    topics.repeats["managed-cards"] = 0


def not_quarantined(topics: Topics) -> None:
    assert isinstance(topics.quarantined, list)
    topics.quarantined.pop()


def wrongly_quarantined(topics: Topics) -> None:
    assert isinstance(topics.quarantined, list)
    topics.quarantined.append(("id-3", "/login/watch"))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lost, "event 3 (/login/watch) was accepted, and handled 0 times"),
        (twice, "event 3 (/login/watch) was accepted, and handled 2 times"),
        (refused_but_handled, "event id-4 was handled, and is none that was accepted"),
        (out_of_order, "event 2 of managed-cards/1 stands before one that was accepted before it was sent"),
        (torn_apart, "events of managed-cards/1 are in more than one partition"),
        (untyped, "event id-3 was not typed, or has another's id"),
        (repeat_not_found, "managed-cards: 1 repeats were sent, and 0 found"),
        (not_quarantined, "1 events that were to be quarantined are not"),
        (wrongly_quarantined, "1 events are in quarantine that do not belong there"),
    ],
)
def test_what_came_out_otherwise_is_convicted(change: Callable[[Topics], None], finding: str) -> None:
    topics = came()
    change(topics)
    assert finding in check(sent(), topics)


def test_an_answer_that_must_not_be_is_convicted() -> None:
    entries = [*sent()[:-1], entry(7, [401], path="/nothing/watch", broken=Broken.UNKNOWN_PATH)]
    assert "event 7 (/nothing/watch, unknown-path) must be quarantined; answers: 401" in check(entries, came())


def test_a_lost_answer_may_have_left_one_record_more() -> None:
    """Two records more are a finding."""
    entries = [entry(1, [None, 204], [204]), *sent()[1:]]
    topics = came()
    assert check(entries, topics) == []
    assert isinstance(topics.repeats, dict)
    topics.repeats["managed-cards"] = 2
    assert check(entries, topics) == []
    topics.repeats["managed-cards"] = 3
    assert check(entries, topics) != []


def test_no_more_than_twenty_findings_are_returned() -> None:
    entries = [entry(index, [401]) for index in range(100)]
    assert len(check(entries, came())) == 20
