"""The events to send: number, kinds, faults, order."""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from random import Random
from typing import Any, Final

from pipeline.sandbox.weavr.bodies import body_of, entity_in
from pipeline.sandbox.weavr.events import Broken, Event, expected_id, legacy_signature, signature_v2
from pipeline.sandbox.weavr.facts import WeavrKind, weavr_kinds

_FIRST_ENTITY: Final = 90_000_000_000_000_000
"""Above 2^53, like all ids of Weavr."""
_STALE_MS: Final = 48 * 3600 * 1000
_MISFIT_PATH: Final = "/managed_cards/authorisations/watch"
_UNKNOWN_PATH: Final = "/managed_cards/renewals/watch"
_NOT_THE_KEY: Final = b"a key that nobody has configured"
_LONGEST_CALL_REF: Final = 255
_LONG_EVERY: Final = 97


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys that sign the events.

    Attributes:
        first: The API key that signs first.
        then: The API key that signs events from ``rotate_at`` on; None: the key never changes.
        rotate_at: Index of the first event that the second key signs.
    """

    first: bytes = field(repr=False)
    then: bytes | None = field(default=None, repr=False)
    rotate_at: int = 0

    def of(self, index: int) -> bytes:
        """Return the key that signs an event."""
        return self.then if self.then is not None and index >= self.rotate_at else self.first


@dataclass(frozen=True, slots=True)
class SendPlan:
    """The events to send. Equal plans make equal events, except for their timestamps.

    Attributes:
        count: Number of events, including broken ones but not repeats.
        weights: Relative frequency of each path: :func:`mix`.
        seed: Seed for all random choices.
        entities: Number of cards, accounts, people and so on in each category.
        call_refs: Share of the events with a call reference.
        repeats: Share of the correct events that are sent again after they were accepted.
        out_of_order: Share of the events that are sent after the next one of their entity.
        new_fields: Share of the events with unknown fields.
        new_enum_values: Share of the events with an unknown enum value.
        broken: Share of broken events, evenly spread over all kinds of faults.
        broken_kinds: Which kinds.
    """

    count: int
    weights: Mapping[str, float] = field(default_factory=lambda: mix({}))
    seed: int = 1
    entities: int = 500
    call_refs: float = 0.8
    repeats: float = 0.0
    out_of_order: float = 0.0
    new_fields: float = 0.0
    new_enum_values: float = 0.0
    broken: float = 0.0
    broken_kinds: tuple[Broken, ...] = tuple(Broken)

    def events(self, integration: str, keys: SigningKeys, *, now_ms: int) -> Iterator[Event]:
        """Yield the events in the order in which to send them. At most one event per entity is in memory.

        Args:
            integration: Name of the integration, which is part of the URL and so of each id.
            keys: The keys that sign the events.
            now_ms: When sending begins. Each timestamp is one millisecond after the previous one, and none is in the
                future.
        """
        held: dict[str, Event] = {}
        for event in _Making(self, integration, keys, now_ms).all():
            before = held.pop(event.entity, None)
            if event.late and before is None:
                held[event.entity] = event
                continue
            yield replace(event, late=False)
            if before is not None:
                yield before
        yield from (replace(event, late=False) for event in held.values())


def mix(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each path, given the weights of patterns such as ``managed_cards/*``.

    The last pattern that matches a path decides. Without any pattern, all 32 kinds are equally frequent. With
    patterns, events are sent only to the paths that a pattern matches.

    Raises:
        ValueError: A pattern matches no path, a weight is negative, or nothing is left.
    """
    if not weights:
        return dict.fromkeys(weavr_kinds(), 1.0)
    found: dict[str, float] = {}
    for pattern, weight in weights.items():
        paths = [path for path in weavr_kinds() if fnmatchcase(_short(path), _short(pattern))]
        if not paths:
            raise ValueError(f"{pattern!r} matches none of Weavr's paths, such as managed_cards/authorisations")
        if weight < 0:
            raise ValueError(f"the weight of {pattern!r} is negative")
        found |= dict.fromkeys(paths, weight)
    if not any(found.values()):
        raise ValueError("all weights are 0: nothing would be sent")
    return found


def _short(path: str) -> str:
    return path.strip("/").removesuffix("/watch")


class _Making:
    """Makes the events, in the order of publication."""

    def __init__(self, plan: SendPlan, integration: str, keys: SigningKeys, now_ms: int) -> None:
        self._plan = plan
        self._integration = integration
        self._keys = keys
        self._first_ms = now_ms - plan.count
        self._rng = Random(plan.seed)  # noqa: S311 - test data, and the same each time
        self._kinds = [weavr_kinds()[path] for path, weight in plan.weights.items() if weight]
        self._bounds = list(accumulate(weight for weight in plan.weights.values() if weight))
        self._sequences: Counter[str] = Counter()
        self._broken = 0

    def all(self) -> Iterator[Event]:
        for index in range(self._plan.count):
            # this many events should be broken by now
            if self._plan.broken_kinds and int((index + 1) * self._plan.broken) > self._broken:
                kinds = self._plan.broken_kinds
                yield self._wrong(index, kinds[self._broken % len(kinds)])
                self._broken += 1
            else:
                yield self._right(index)

    def _right(self, index: int) -> Event:
        kind, plan = self._kind(), self._plan
        body = body_of(
            kind.path,
            self._rng,
            fields="some",
            new_fields=1 + index % 2 if self._happens(plan.new_fields) else 0,
            new_enum_values=self._happens(plan.new_enum_values),
            entity=str(_FIRST_ENTITY + int(self._rng.random() * plan.entities)),
        )
        entity = f"{kind.category}/{entity_in(kind.path, body)}"
        self._sequences[entity] += 1
        made = self._event(index, kind.path, kind.category, _encoded(body), signed=kind.signed)
        return replace(
            made,
            entity=entity,
            sequence=self._sequences[entity],
            repeated=self._happens(plan.repeats),
            late=self._happens(plan.out_of_order),
        )

    def _wrong(self, index: int, broken: Broken) -> Event:
        kind = self._kind()
        while not kind.signed:
            kind = weavr_kinds()[_MISFIT_PATH]
        path, category = kind.path, kind.category
        body = body_of(path, self._rng, fields="some")
        if broken is Broken.MISFIT:
            path, category = _MISFIT_PATH, weavr_kinds()[_MISFIT_PATH].category
            body = body_of(path, self._rng, fields="some") | {"id": "no object", "transactionAmount": []}
        elif broken is Broken.UNKNOWN_PATH:
            path, category = _UNKNOWN_PATH, ""
        made = self._event(
            index,
            path,
            category,
            _encoded(body),
            key=_NOT_THE_KEY if broken is Broken.WRONG_KEY else None,
            age_ms=_STALE_MS if broken is Broken.STALE else 0,
        )
        return _spoilt(replace(made, entity=f"broken/{index}", broken=broken), broken)

    def _event(
        self,
        index: int,
        path: str,
        category: str,
        body: bytes,
        *,
        signed: bool = True,
        key: bytes | None = None,
        age_ms: int = 0,
    ) -> Event:
        published = str(self._first_ms + index - age_ms)
        reference = ""
        if self._happens(self._plan.call_refs):
            reference = f"sandbox-{self._plan.seed}-{index}"
            if index % _LONG_EVERY == 0:
                reference = reference.ljust(_LONGEST_CALL_REF, "x")
        key = key or self._keys.of(index)
        headers = [("content-type", "application/json"), ("published-timestamp", published)]
        if reference:
            headers.append(("call-ref" if signed else "request-ref", reference))
        if signed:
            headers.append(("signature-v2", signature_v2(key, reference, body, published)))
            headers.append(("signature", legacy_signature(key, published)))
        ce_id = expected_id(self._integration, path, reference, body, published)
        return Event(index, path, category, "", 0, reference, ce_id, tuple(headers), body)

    def _kind(self) -> WeavrKind:
        return self._kinds[bisect(self._bounds, self._rng.random() * self._bounds[-1])]

    def _happens(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _spoilt(event: Event, broken: Broken) -> Event:
    """Return the event with the damage that happens after signing."""
    if broken is Broken.CUT:
        return replace(event, body=event.body[: len(event.body) // 2])
    if broken is Broken.NO_SIGNATURE:
        headers = tuple((name, value) for name, value in event.headers if not name.startswith("signature"))
        return replace(event, headers=headers)
    if broken is Broken.MALFORMED:
        headers = tuple((name, "*" + value[1:] if name == "signature-v2" else value) for name, value in event.headers)
        return replace(event, headers=headers)
    return event
