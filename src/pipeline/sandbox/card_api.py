"""A stand-in for an API that loads one card at a time. The ``http`` processor calls it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from aiohttp import web

from pipeline.sandbox.faults import Faults, delay, drop
from pipeline.sandbox.settings import CardApiSettings

CARDS_PATH: Final = "/card-api/v1/cards"

_BURST_SECONDS: Final = 0.25
"""A burst may have as many requests as the rate allows in this time."""


@dataclass(slots=True)
class CardCounts:
    """Counts of the card API's requests and their results.

    Attributes:
        repeats: Requests with a known key, which had no further effect.
        limited: Requests above the rate, answered 429.
    """

    requests: int = 0
    loaded: int = 0
    declined: int = 0
    repeats: int = 0
    without_key: int = 0
    unauthorized: int = 0
    limited: int = 0


@dataclass(frozen=True, slots=True)
class _Said:
    payload: bytes
    status: int
    document: Mapping[str, object]


def declined(number: str, share: int) -> bool:
    """Return whether the card API declines a card. It declines one number in ``share``, always the same ones."""
    return share > 0 and zlib.crc32(number.encode()) % share == 0


class CardApi:
    """Loads cards, once for each idempotency key.

    Attributes:
        counts: Counts since its start.
    """

    def __init__(self, settings: CardApiSettings, *, faults: Faults) -> None:
        self.counts = CardCounts()
        self._settings = settings
        self._faults = faults
        self._said: OrderedDict[str, _Said] = OrderedDict()
        self._taken_until = 0.0

    def routes(self) -> list[web.RouteDef]:
        """Return its one endpoint."""
        return [web.post(CARDS_PATH, self._load)]

    def view(self) -> dict[str, int]:
        """Return the counts for the control API."""
        return asdict(self.counts)

    async def _load(self, request: web.Request) -> web.StreamResponse:
        self.counts.requests += 1
        body = await request.read()
        faults = self._faults.take("cards")
        await delay(faults)
        await asyncio.sleep(self._settings.latency_seconds)
        if "status" in faults:
            retry_after = faults["status"].retry_after
            headers = {} if retry_after is None else {"Retry-After": retry_after}
            return web.json_response({"error": "refused on purpose"}, status=faults["status"].status, headers=headers)
        if self._settings.requests_per_second and not self._has_room(asyncio.get_running_loop().time()):
            self.counts.limited += 1
            return web.json_response({"error": "too many requests"}, status=429, headers={"Retry-After": "1"})
        if not self._authorized(request.headers.get("Authorization", "")):
            self.counts.unauthorized += 1
            return web.json_response({"error": "the bearer token is wrong"}, status=401)
        answer = self._answer(request.headers.get("Idempotency-Key"), body)
        return drop(request) if "lost" in faults else answer

    def _has_room(self, now: float) -> bool:
        """Count a request and return True, unless it exceeds the rate and the allowed burst."""
        until = max(self._taken_until, now)
        if until > now + _BURST_SECONDS:
            return False
        self._taken_until = until + 1 / self._settings.requests_per_second
        return True

    def _authorized(self, header: str) -> bool:
        wanted = f"Bearer {self._settings.token.get_secret_value()}"
        return hmac.compare_digest(header.encode(), wanted.encode())

    def _answer(self, key: str | None, body: bytes) -> web.Response:
        payload = hashlib.sha256(body).digest()
        said = self._said.get(key) if key is not None else None
        if said is not None and said.payload != payload:
            return web.json_response({"error": "this Idempotency-Key was used with another payload"}, status=422)
        if said is not None:
            self.counts.repeats += 1
            return web.json_response(said.document, status=said.status, headers={"Idempotency-Replayed": "true"})
        said = self._decide(body, payload)
        if key is None:
            self.counts.without_key += 1
        else:
            self._said[key] = said
            if len(self._said) > self._settings.remembered_keys:
                self._said.popitem(last=False)
        return web.json_response(said.document, status=said.status)

    def _decide(self, body: bytes, payload: bytes) -> _Said:
        try:
            number = json.loads(body)["card_number"]
        except (ValueError, KeyError, TypeError):
            return _Said(payload, 400, {"error": "the body must be a JSON object with card_number"})
        if not isinstance(number, str) or not (number.isascii() and number.isdigit()):
            self.counts.declined += 1
            return _Said(payload, 422, {"status": "declined", "reason": "not a card number"})
        if declined(number, self._settings.declined_share):
            self.counts.declined += 1
            return _Said(payload, 422, {"status": "declined", "reason": "the issuer declines this card"})
        self.counts.loaded += 1
        return _Said(payload, 201, {"status": "loaded", "id": payload.hex()[:16]})
