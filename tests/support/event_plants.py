"""Markers in the names, tokens and account numbers of Weavr's events, and the search for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from pipeline.contracts.sensitive import is_sensitive
from pipeline.sandbox.weavr import planted

_HARMLESS: Final = "no marker"
ADDED_FIELD: Final = "addedByWeavrTomorrow"

_MARKER: Final = re.compile(rb"planted[0-9a-p]{2,}|TEST[0-9]{6,}", re.IGNORECASE)
"""Also what was cut off: no other text begins so."""
_WHOLE: Final = re.compile(
    rb"(?<![0-9A-Za-z])PL[0-9a-f]{8}|19[0-9]{2}-[0-9]{2}-[0-9]{2}|(?<![0-9A-Za-z.])[0-9]{6,16}(?![0-9A-Za-z])"
)
"""Postcodes, dates, numbers: they count where they are one of those that were planted."""
_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")


@dataclass
class EventPlants:
    """What was planted, by kind.

    Attributes:
        wholes: Markers that are found by comparison: numbers, dates, postcodes.
        tokens: Markers instead of ``authToken``.
        echoed: Markers that the sender wrote into headers that are kept as its own words: call reference, media type.
        paths: Markers in the path of an authentic event.
        named: Markers that look like names of fields, and stand where those stand.
        repeated: The same, where a name stands twice in an object.
        secrets: API keys, secrets, secret path segments, by name.
        signatures: As sent.
    """

    wholes: set[bytes] = field(default_factory=set)
    tokens: set[bytes] = field(default_factory=set)
    echoed: set[bytes] = field(default_factory=set)
    paths: set[bytes] = field(default_factory=set)
    named: set[bytes] = field(default_factory=set)
    repeated: set[bytes] = field(default_factory=set)
    secrets: dict[str, bytes] = field(default_factory=dict)
    signatures: set[bytes] = field(default_factory=set)

    def body(self, path: str, rng: Random) -> dict[str, Any]:
        """Return a body of a kind, with a marker in every sensitive field and in one unknown field."""
        made = planted(path, rng)
        self.wholes |= {one.lstrip("+").encode() for one in made.markers if not _MARKER.search(one.encode())}
        self.tokens |= {one.encode() for one, path in made.markers.items() if path.endswith("authToken")}
        _plant_more(made.body, "", rng, set(made.markers))
        return {**made.body, ADDED_FIELD: marker(rng)}

    def echo(self, rng: Random) -> str:
        """Return a marker for a header that is kept as it came."""
        return _noted(self.echoed, marker(rng))

    def path(self, rng: Random) -> str:
        """Return a marker for the path of an authentic event."""
        return _noted(self.paths, marker(rng))

    def name(self, rng: Random, *, repeated: bool = False) -> str:
        """Return a marker that could be the name of a field: letters alone."""
        return _noted(self.repeated if repeated else self.named, marker(rng).translate(_LETTERS))

    def found(self, data: bytes, *, allowed: Collection[str] = ()) -> dict[str, set[bytes]]:
        """Return the planted values in ``data``, by kind, without the kinds that are allowed there."""
        markers = {one.lower() for one in _MARKER.findall(data)}
        special = {"token": self.tokens, "echo": self.echoed, "path": self.paths}
        special |= {"name": self.named, "repeated name": self.repeated}
        kinds = {
            "marker": markers.difference(*special.values()) | self.wholes.intersection(_WHOLE.findall(data)),
            **{kind: markers & those for kind, those in special.items()},
            "secret": {name.encode() for name, value in self.secrets.items() if value in data},
            "signature": {one for one in self.signatures if one in data},
        }
        return {kind: hits for kind, hits in kinds.items() if hits and kind not in allowed}


def marker(rng: Random) -> str:
    """Return a text that occurs nowhere else."""
    return f"planted{rng.getrandbits(32):08x}"


def odd_name(rng: Random) -> str:
    """Return a marker for the position of a name; it looks like no name: it has too many digits."""
    return f"planted{int(rng.random() * 1e8):08d}"


def misfit(body: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Return a body of the same values in which every field has another type than it must have."""
    return {
        name: [value] if isinstance(value, dict) else {"text": value, odd_name(rng): value}
        for name, value in body.items()
    }


def deep_misfit(value: Any, rng: Random, *, spoil: bool = True) -> Any:
    """Return a body of the same shape in which no text or number is one, and the keys of maps are markers.

    Args:
        value: The body.
        rng: Makes the markers.
        spoil: Whether all of it is spoilt; else its maps alone, if it has any.
    """
    if isinstance(value, dict):
        # keys of maps are numbers; all others are names of fields
        return {
            odd_name(rng) if name.isdecimal() else name: deep_misfit(one, rng, spoil=spoil or name.isdecimal())
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [deep_misfit(one, rng, spoil=spoil) for one in value]
    return {odd_name(rng): value} if spoil else value


def _noted(kind: set[bytes], text: str) -> str:
    kind.add(text.encode())
    return text


def _plant_more(value: Any, name: str, rng: Random, known: set[str]) -> None:
    """Plant what the sandbox leaves (cities, notes, short numbers of cards), and take back what is not sensitive."""
    pairs: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        called = key if isinstance(key, str) else name
        if isinstance(inner, dict | list):
            _plant_more(inner, called, rng, known)
        elif isinstance(inner, str) and (inner in known) != _is_sensitive(called, inner):
            value[key] = _HARMLESS if inner in known else marker(rng)


def _is_sensitive(name: str, value: str) -> bool:
    # ``value`` is a number in some events, and a text in others
    return is_sensitive(name) and not (name == "value" and value.isdecimal())
