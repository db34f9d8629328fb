"""Requests of Weavr and of two configured senders, right and wrong in every way, full of markers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from support.event_plants import EventPlants, deep_misfit, marker, misfit, odd_name

from pipeline.sandbox.weavr import signature_v2, weavr_kinds

LIMIT: Final = 50_000
"""Bytes of a body that the ingress takes."""
API_KEYS: Final = ("synthetic-weavr-key-of-the-oldest-client", "synthetic-weavr-key-that-takes-over")
PATH_SECRET: Final = "synthetic-path-secret-0123456789"
SHOP_SECRET: Final = "synthetic-shop-secret-0123456789"
RELAY_SECRET: Final = "whsec_" + base64.b64encode(b"synthetic-relay-secret-012345678").decode()

_STALE_MS: Final = 48 * 3600 * 1000
_WRONG_KEY: Final = b"a key that nobody has configured"
_REFUSED: Final = 401
_LATER: Final = 503
_KEPT: Final = 204
_TOO_LARGE: Final = 413

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Knock:
    """One request and what must be answered.

    Attributes:
        way: What is the matter with it.
        path: Behind ``/webhooks``.
    """

    way: str
    path: str
    headers: Headers
    body: bytes
    status: int


class Knocks:
    """Makes the requests, and notes what was planted in them."""

    def __init__(self, plants: EventPlants) -> None:
        self._plants = plants
        self._rng = Random("knocks")  # noqa: S311 - test data, and the same each time
        self._now = time.time_ns() // 1_000_000

    def all(self) -> Iterator[Knock]:
        """Make all of them; every kind of Weavr's in every way."""
        for number, path in enumerate(weavr_kinds()):
            yield self._weavr("right", path, self._body(path), _KEPT, key=API_KEYS[number % 2])
            for way in _WAYS:
                yield getattr(self, f"_{way}")(path)
        yield from self._of_shop()
        yield from self._of_relay()
        yield from self._strange()

    # Weavr

    def _body(self, path: str) -> dict[str, Any]:
        return self._plants.body(path, self._rng)

    def _weavr(
        self,
        way: str,
        path: str,
        body: Mapping[str, Any] | bytes,
        status: int,
        *,
        key: str | bytes = API_KEYS[0],
        age_ms: int = 0,
        more: Mapping[str, str] | None = None,
        spoil: Callable[[str], str] | None = None,
    ) -> Knock:
        raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        published, reference = str(self._now - age_ms), (more or {}).get("call-ref", f"reference-{self._rng.random()}")
        headers = {"Content-Type": "application/json", "published-timestamp": published, "call-ref": reference}
        if way != "right" or weavr_kinds()[path].signed:
            secret = key if isinstance(key, bytes) else key.encode()
            signature = signature_v2(secret, reference, raw, published)
            self._plants.signatures.add(signature.encode())
            headers["signature-v2"] = spoil(signature) if spoil else signature
        return Knock(way, f"/weavr/acme/{PATH_SECRET}{path}", {**headers, **(more or {})}, raw, status)

    def _wrong_key(self, path: str) -> Knock:
        return self._weavr("wrong key", path, self._body(path), _LATER, key=_WRONG_KEY)

    def _malformed(self, path: str) -> Knock:
        body = self._body(path)
        return self._weavr("malformed", path, body, _REFUSED, spoil=lambda _: f"*{marker(self._rng)}")

    def _stale(self, path: str) -> Knock:
        return self._weavr("stale", path, self._body(path), _REFUSED, age_ms=_STALE_MS)

    def _misfit(self, path: str) -> Knock:
        return self._weavr("misfit", path, misfit(self._body(path), self._rng), _KEPT)

    def _deep(self, path: str) -> Knock:
        return self._weavr("deep misfit", path, deep_misfit(self._body(path), self._rng), _KEPT)

    def _unknown_path(self, path: str) -> Knock:
        return self._weavr("unknown path", path.replace("/watch", "/renewed/watch"), self._body(path), _KEPT)

    def _broken(self, path: str) -> Knock:
        raw = json.dumps(self._body(path)).encode()
        return self._weavr("broken JSON", path, raw[: len(raw) - 3], _KEPT)

    def _twice(self, path: str) -> Knock:
        name = self._plants.name(self._rng, repeated=True)
        raw = json.dumps(self._body(path))[:-1] + f', "{name}": "{marker(self._rng)}", "{name}": 1}}'
        return self._weavr("a name twice", path, raw.encode(), _KEPT)

    def _new(self, path: str) -> Knock:
        """Return unknown fields, whose names are markers too."""
        named = {odd_name(self._rng): 1, f"{marker(self._rng)}@example.com": {odd_name(self._rng): [marker(self._rng)]}}
        named |= {self._plants.name(self._rng): marker(self._rng)}
        return self._weavr("new fields", path, self._body(path) | named, _KEPT)

    def _huge(self, path: str) -> Knock:
        return self._weavr("huge", path, self._body(path) | {"more": marker(self._rng) * LIMIT}, _TOO_LARGE)

    # configured senders

    def _of_shop(self) -> Iterator[Knock]:
        right = self._shop_body()
        yield self._shop("right", right, 200)
        yield self._shop("wrong key", self._shop_body(), _REFUSED, secret="another")
        yield self._shop("stale", self._shop_body(), _REFUSED, age=_STALE_MS // 1000)
        yield self._shop("misfit", {"id": [right], "type": {odd_name(self._rng): right}}, 200)
        yield self._shop("broken JSON", json.dumps(self._shop_body()).encode()[:-3], 200)
        yield self._shop("huge", {"more": marker(self._rng) * LIMIT}, _TOO_LARGE)

    def _shop_body(self) -> dict[str, Any]:
        ident = f"evt_{self._rng.getrandbits(48)}"
        card = {"id": f"ch_{self._rng.getrandbits(48)}", "name": marker(self._rng), odd_name(self._rng): 1}
        return {"id": ident, "type": "charge.succeeded", "data": {"object": card}, "email": marker(self._rng)}

    def _shop(
        self, way: str, body: Mapping[str, Any] | bytes, status: int, *, secret: str = SHOP_SECRET, age: int = 0
    ) -> Knock:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        at = self._now // 1000 - age
        signature = hmac.new(secret.encode(), f"{at}.".encode() + raw, hashlib.sha256).hexdigest()
        self._plants.signatures.add(signature.encode())
        headers = {"Content-Type": "application/json", "Stripe-Signature": f"t={at},v1={signature}"}
        return Knock(f"shop, {way}", "/sources/shop", headers, raw, status)

    def _of_relay(self) -> Iterator[Knock]:
        yield self._relay("right", {"type": "user.created", "data": marker(self._rng)}, 200)
        yield self._relay("wrong key", {"data": marker(self._rng)}, _REFUSED, secret=b"another")
        yield self._relay("malformed", {"data": marker(self._rng)}, _REFUSED, version=f"v1,{marker(self._rng)}")
        yield self._relay("misfit", {"type": "long" * 100, "data": marker(self._rng)}, 200)

    def _relay(
        self, way: str, body: Mapping[str, Any], status: int, *, secret: bytes = b"", version: str = "v1,"
    ) -> Knock:
        raw, ident, at = json.dumps(body).encode(), f"msg_{self._rng.getrandbits(48)}", str(self._now // 1000)
        key = secret or base64.b64decode(RELAY_SECRET.removeprefix("whsec_"))
        signature = base64.b64encode(hmac.digest(key, f"{ident}.{at}.".encode() + raw, "sha256")).decode()
        self._plants.signatures.add(signature.encode())
        headers = {"webhook-id": ident, "webhook-timestamp": at, "webhook-signature": version + signature}
        return Knock(f"relay, {way}", "/sources/relay", {"Content-Type": "application/json", **headers}, raw, status)

    # strangers, and what the sender's own words may be

    def _strange(self) -> Iterator[Knock]:
        path, rng, echo = "/managed_cards/authorisations/watch", self._rng, self._plants.echo
        body = self._body(path)
        own = {
            "call-ref": echo(rng),
            "Content-Type": f"text/{echo(rng)}",
            "User-Agent": marker(rng),
            "X-Forwarded-For": marker(rng),
            "traceparent": f"00-{marker(rng)}-{marker(rng)}-01",
            "X-Api-Key": marker(rng),
        }
        yield self._weavr("own words", path, body, _KEPT, more=own)
        yield self._weavr("own path", f"/{self._plants.path(rng)}/watch", self._body(path), _KEPT)
        yield self._weavr("time", path, body, _REFUSED, more={"published-timestamp": marker(rng)})
        unsigned = self._weavr("right", "/bulk_process_end/watch", self._body("/bulk_process_end/watch"), _LATER)
        wrong = unsigned.path.replace(PATH_SECRET, marker(rng))
        yield Knock("wrong segment", wrong, unsigned.headers, unsigned.body, _LATER)
        yield Knock("no segment", wrong.replace(wrong.split("/")[3] + "/", ""), unsigned.headers, unsigned.body, _LATER)
        bare = {"Content-Type": "application/json", "published-timestamp": str(self._now)}
        yield Knock("no signature", f"/weavr/acme/{PATH_SECRET}{path}", bare, json.dumps(body).encode(), _REFUSED)
        yield Knock(
            "no webhook", f"/weavr/{marker(rng)}/{PATH_SECRET}{path}?{marker(rng)}={marker(rng)}", bare, b"", 404
        )
        yield Knock("below shop", f"/sources/shop/{marker(rng)}", bare, marker(rng).encode(), 404)


_WAYS: Final = ("wrong_key", "malformed", "stale", "misfit", "deep", "unknown_path", "broken", "twice", "new", "huge")
