"""Which events a plan makes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from pipeline.sandbox.weavr import (
    NEW_ENUM_VALUE,
    Broken,
    Event,
    SendPlan,
    SigningKeys,
    expected_id,
    mix,
    signature_v2,
    weavr_kinds,
)

KEYS = SigningKeys(b"first")
NOW_MS = 1_764_000_000_000


def made(keys: SigningKeys = KEYS, **plan: Any) -> list[Event]:
    return list(SendPlan(**{"count": 400, **plan}).events("acme", keys, now_ms=NOW_MS))


def headers(event: Event) -> dict[str, str]:
    return dict(event.headers)


def verifies(event: Event, key: bytes) -> bool:
    found = headers(event)
    signature = signature_v2(key, found.get("call-ref", ""), event.body, found["published-timestamp"])
    return found.get("signature-v2") == signature


def of(events: Iterable[Event], broken: Broken) -> Event:
    return next(event for event in events if event.broken is broken)


def test_all_32_kinds_come_and_every_one_is_signed_that_weavr_signs() -> None:
    events = made(count=1000)
    assert {event.path for event in events} == set(weavr_kinds())
    assert all(verifies(event, b"first") == (event.path != "/bulk_process_end/watch") for event in events)


def test_the_same_plan_makes_the_same_events() -> None:
    assert made(broken=0.1, repeats=0.1) == made(broken=0.1, repeats=0.1)
    assert made() != made(seed=2)


def test_each_event_has_a_timestamp_and_an_id_of_its_own() -> None:
    """No timestamp is in the future."""
    events = made(count=1000, call_refs=0.5, entities=2)
    times = [int(headers(event)["published-timestamp"]) for event in events]
    assert times == list(range(NOW_MS - 1000, NOW_MS))
    assert len({event.ce_id for event in events}) == 1000


def test_the_expected_id_is_made_of_what_is_sent() -> None:
    for event in made():
        published = headers(event)["published-timestamp"]
        assert event.ce_id == expected_id("acme", event.path, event.reference, event.body, published)


def test_references_are_of_both_kinds_missing_and_255_characters_long() -> None:
    events = made(count=1000)
    signed = [event for event in events if event.path != "/bulk_process_end/watch"]
    unsigned = [event for event in events if event.path == "/bulk_process_end/watch"]
    assert {len(headers(event).get("call-ref", "")) for event in signed} >= {0, 13, 255}
    assert any("request-ref" in headers(event) for event in unsigned)
    assert not any("call-ref" in headers(event) or "signature" in headers(event) for event in unsigned)


def test_sequences_count_the_events_of_each_entity() -> None:
    seen: Counter[str] = Counter()
    for event in made(entities=3, count=1000):
        seen[event.entity] += 1
        assert event.sequence == seen[event.entity]
    assert max(seen.values()) > 10


def test_late_events_come_after_a_younger_one_of_their_entity() -> None:
    events = made(entities=3, out_of_order=0.2)
    latest: Counter[str] = Counter()
    for event in events:
        assert event.late == (event.sequence < latest[event.entity])
        latest[event.entity] = max(latest[event.entity], event.sequence)
    assert sum(event.late for event in events) > 20
    assert sorted(event.index for event in events) == list(range(400))


def test_the_second_key_signs_from_its_event_on() -> None:
    events = made(SigningKeys(b"first", b"second", 200), weights=mix({"login": 1}))
    assert [verifies(event, b"second") for event in events] == [False] * 200 + [True] * 200
    assert all(verifies(event, b"first") for event in events[:200])


def test_repeats_and_changes_come_in_their_shares() -> None:
    events = made(count=2000, repeats=0.1, new_fields=0.2, new_enum_values=0.2)
    assert 120 < sum(event.repeated for event in events) < 280
    assert 300 < sum(b'"sandboxAdded0"' in event.body for event in events) < 500
    assert 250 < sum(NEW_ENUM_VALUE.encode() in event.body for event in events) < 450


def test_broken_ones_are_spread_evenly_and_of_every_kind() -> None:
    events = made(broken=0.07)
    assert [event.index for event in events if event.broken][:3] == [14, 28, 42]
    assert Counter(event.broken for event in events if event.broken) == dict.fromkeys(Broken, 4)
    assert not any(event.sequence or event.repeated for event in events if event.broken)


def test_each_broken_one_is_wrong_in_its_own_way() -> None:
    events = made(broken=0.1)
    assert not verifies(of(events, Broken.WRONG_KEY), b"first")
    assert not verifies(of(events, Broken.CUT), b"first")
    stale = of(events, Broken.STALE)
    assert verifies(stale, b"first")
    assert NOW_MS - int(headers(stale)["published-timestamp"]) > 24 * 3600 * 1000
    assert {"signature", "signature-v2"} & set(headers(of(events, Broken.NO_SIGNATURE))) == set()
    assert headers(of(events, Broken.MALFORMED))["signature-v2"].startswith("*")
    misfit = of(events, Broken.MISFIT)
    assert verifies(misfit, b"first")
    assert json.loads(misfit.body)["id"] == "no object"
    unknown = of(events, Broken.UNKNOWN_PATH)
    assert verifies(unknown, b"first")
    assert unknown.path not in weavr_kinds()


def test_only_the_kinds_asked_for_are_broken() -> None:
    events = made(broken=0.1, broken_kinds=(Broken.STALE,))
    assert {event.broken for event in events} == {None, Broken.STALE}


class TestMix:
    def test_a_pattern_takes_its_paths_and_a_later_one_decides(self) -> None:
        found = mix({"managed_cards/*": 3, "/managed_cards/payments/watch": 1, "login": 2})
        assert found["/managed_cards/payments/watch"] == 1
        assert found["/managed_cards/expiries/watch"] == 3
        assert found["/login/watch"] == 2
        assert len(found) == 9

    def test_weights_decide_how_often_a_path_comes(self) -> None:
        events = made(count=4000, weights=mix({"login": 3, "stepup": 1, "send": 0}))
        counted = Counter(event.path for event in events)
        assert set(counted) == {"/login/watch", "/stepup/watch"}
        assert 2.5 < counted["/login/watch"] / counted["/stepup/watch"] < 3.6

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"cards/*": 1}, "matches none of Weavr's paths"),
            ({"login": -1}, "is negative"),
            ({"login": 0}, "nothing would be sent"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, weights: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            mix(weights)
