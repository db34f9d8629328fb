"""``pipeline.subscriber.testing``: what tests of handlers use."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.contracts import Headers
from pipeline.contracts.weavr import BY_TYPE, ManagedCardsAuthorisationEvent
from pipeline.errors import PoisonRecord
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.subscriber import Event, Poison, Retry, Subscriber
from pipeline.subscriber.testing import Outcome, event_of, run_handler

KIND = BY_TYPE["weavr.managed_cards.authorisations"]
BODY = body_of(KIND.path, Random(3), entity="42")  # noqa: S311 - the same each time


class Fee(BaseModel):
    amount: int


@pytest.fixture
def subscriber() -> Subscriber:
    return Subscriber("127.0.0.1:1", group="fraud", topics=["managed-cards"])


async def test_an_event_is_made_of_a_model_and_a_body_and_handled(subscriber: Subscriber) -> None:
    seen: list[Event[ManagedCardsAuthorisationEvent]] = []

    @subscriber.on(ManagedCardsAuthorisationEvent)
    async def handle(event: Event[ManagedCardsAuthorisationEvent]) -> None:
        seen.append(event)

    event = event_of(ManagedCardsAuthorisationEvent, BODY)
    assert await run_handler(subscriber, event) == Outcome("done")
    assert seen == [event]
    assert (event.subject, event.key, event.topic) == ("card/42", "test/card/42", "card-events.managed-cards")
    assert event.data.id.id == "42"


async def test_the_bytes_as_received_make_the_same_event() -> None:
    raw = json.dumps(BODY).encode()
    assert event_of(KIND.type, raw) == event_of(ManagedCardsAuthorisationEvent, BODY)


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (Retry("away", retry_after=3), 1, Outcome("retry", "handler_retry", "away", 3)),
        (Poison("never"), 1, Outcome("dead-letter", "handler_poison", "never")),
        (Retry("away"), 5, Outcome("dead-letter", "attempts_exhausted", "Attempt 5 was the last: away")),
    ],
)
async def test_what_a_handler_raises_becomes_an_outcome(
    subscriber: Subscriber, error: Exception, attempt: int, expected: Outcome
) -> None:
    @subscriber.on("acme.fee", model=Fee)
    async def handle(event: Event[Fee]) -> None:
        assert event.data.amount == 1
        raise error

    event = event_of("acme.fee", {"amount": 1}, attempt=attempt, model=Fee)
    assert await run_handler(subscriber, event) == expected


async def test_a_type_without_handler_is_passed_over(subscriber: Subscriber) -> None:
    assert await run_handler(subscriber, event_of("acme.fee", {})) == Outcome("passed-over")


@pytest.mark.parametrize("body", [b"no json", {"id": 1}])
def test_a_body_that_does_not_fit_makes_no_event(body: Any) -> None:
    with pytest.raises(PoisonRecord):
        event_of(ManagedCardsAuthorisationEvent, body)


@pytest.mark.parametrize("rest", [True, False])
async def test_a_raw_handler_gets_plain_json_of_bodies_that_fit_no_model(subscriber: Subscriber, *, rest: bool) -> None:
    seen: list[Any] = []
    declare = subscriber.on_any(raw=True) if rest else subscriber.on(KIND.type, raw=True)

    @declare
    async def handle(event: Event[Any]) -> None:
        seen.append(event.data)

    typed = event_of(KIND.type, BODY)
    unfit = replace(typed, raw=b'{"id": 7}')
    newer = replace(typed, headers=_with(typed.headers, "ce_dataschema", b"urn:card-pipeline:schema:another:v9"))
    for event in (typed, unfit, newer):
        assert await run_handler(subscriber, event) == Outcome("done")
    assert seen == [BODY, {"id": 7}, BODY]


async def test_a_raw_handler_gets_nothing_that_is_no_json(subscriber: Subscriber) -> None:
    @subscriber.on_any(raw=True)
    async def handle(event: Event[Any]) -> None:
        raise AssertionError(event.id)

    broken = replace(event_of(KIND.type, BODY), raw=b"{")
    assert (await run_handler(subscriber, broken)).code == "event_not_json"


async def test_a_typed_handler_gets_no_body_that_does_not_fit_whatever_the_raw_one_takes(
    subscriber: Subscriber,
) -> None:
    @subscriber.on_any(raw=True)
    async def handle(event: Event[Any]) -> None:
        raise AssertionError(event.id)

    @subscriber.on(ManagedCardsAuthorisationEvent)
    async def handle_typed(event: Event[ManagedCardsAuthorisationEvent]) -> None:
        raise AssertionError(event.id)

    unfit = replace(event_of(KIND.type, BODY), raw=b'{"id": 7}')
    assert (await run_handler(subscriber, unfit)).code == "event_unfit"


def _with(headers: Headers, name: str, value: bytes) -> Headers:
    return (*(one for one in headers if one[0] != name), (name, value))
