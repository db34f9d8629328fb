"""The card API loads a card once per idempotency key, and declines some."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from support.sandbox_world import Start

from pipeline.sandbox import Fault, Sandbox, declined
from pipeline.sandbox.cards import CardFile, plant

GOOD = next(n for n in (plant(CardFile(), r).number for r in range(1, 99)) if not declined(n, 25))
BAD = next(n for n in (plant(CardFile(), r).number for r in range(1, 999)) if declined(n, 25))
TOKEN = "sandbox-card-api-token"


async def load(
    sandbox: Sandbox, http: aiohttp.ClientSession, body: object, *, key: str | None = None, token: str = TOKEN
) -> tuple[int, Any, bool]:
    headers = {"Authorization": f"Bearer {token}"} | ({} if key is None else {"Idempotency-Key": key})
    async with http.post(sandbox.cards_url, json=body, headers=headers) as response:
        return response.status, await response.json(), "Idempotency-Replayed" in response.headers


async def test_a_key_has_its_effect_once(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The repeat gets the same answer and counts as a repeat."""
    first = await load(sandbox, http, {"card_number": GOOD}, key="k1")
    again = await load(sandbox, http, {"card_number": GOOD}, key="k1")
    assert first[0] == again[0] == 201
    assert first[1] == again[1]
    assert (first[2], again[2]) == (False, True)
    counts = sandbox.card_api.counts
    assert (counts.requests, counts.loaded, counts.repeats) == (2, 1, 1)


async def test_a_key_with_another_card_is_refused(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """422, and nothing is loaded."""
    await load(sandbox, http, {"card_number": GOOD}, key="k1")
    assert (await load(sandbox, http, {"card_number": GOOD, "amount": "1"}, key="k1"))[0] == 422
    assert sandbox.card_api.counts.loaded == 1


async def test_without_a_key_every_request_loads(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Each is also counted as a request without a key."""
    for _ in range(2):
        assert (await load(sandbox, http, {"card_number": GOOD}))[0] == 201
    assert (sandbox.card_api.counts.loaded, sandbox.card_api.counts.without_key) == (2, 2)


@pytest.mark.parametrize("number", [BAD, "", "12AB", 7, None])
async def test_some_cards_are_declined(sandbox: Sandbox, http: aiohttp.ClientSession, number: object) -> None:
    """One in 25 by a fixed rule, and whatever is no number."""
    status, document, _ = await load(sandbox, http, {"card_number": number})
    assert (status, document["status"]) == (422, "declined")
    assert sandbox.card_api.counts.declined == 1


async def test_what_is_no_card_is_a_bad_request(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The body is another JSON document, or empty."""
    assert (await load(sandbox, http, {"number": GOOD}))[0] == 400
    assert (await load(sandbox, http, [GOOD]))[0] == 400


async def test_a_wrong_token_is_401(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The request is counted."""
    assert (await load(sandbox, http, {"card_number": GOOD}, token="other"))[0] == 401
    assert sandbox.card_api.counts.unauthorized == 1


async def test_old_keys_are_forgotten(start: Start, http: aiohttp.ClientSession) -> None:
    """Memory is bounded: the oldest key goes first."""
    sandbox = await start(card_api={"remembered_keys": 2, "declined_share": 0})
    for key in ("a", "b", "c", "a"):
        await load(sandbox, http, {"card_number": BAD}, key=key)
    assert (sandbox.card_api.counts.loaded, sandbox.card_api.counts.repeats) == (4, 0)


async def test_it_fails_as_asked(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """An error before the effect; a lost answer after it."""
    sandbox.faults.add(Fault(target="cards", kind="status", status=503, retry_after="1"))
    assert (await load(sandbox, http, {"card_number": GOOD}, key="k1"))[0] == 503
    sandbox.faults.add(Fault(target="cards", kind="status", status=429))
    assert (await load(sandbox, http, {"card_number": GOOD}, key="k1"))[0] == 429
    sandbox.faults.add(Fault(target="cards", kind="lost"))
    with pytest.raises(aiohttp.ClientError):
        await load(sandbox, http, {"card_number": GOOD}, key="k1")
    assert (await load(sandbox, http, {"card_number": GOOD}, key="k1"))[2]
    assert sandbox.card_api.counts.loaded == 1


async def test_more_requests_than_it_takes_are_answered_429(start: Start, http: aiohttp.ClientSession) -> None:
    """A quarter of a second's requests may come at once; what is refused has no effect."""
    sandbox = await start(card_api={"requests_per_second": 8})
    answers = [(await load(sandbox, http, {"card_number": GOOD}, key=f"k{number}"))[0] for number in range(12)]
    counts = sandbox.card_api.counts
    assert answers[:3] == [201] * 3
    assert counts.limited == answers.count(429) > 0
    assert counts.loaded == answers.count(201) == 12 - counts.limited
