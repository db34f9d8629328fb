"""Synthetic values of single fields, in the form that the description requires.

They are nobody's data: addresses at example.com, numbers reserved for fiction, a bank called TEST, cards of no issuer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from pipeline.sandbox.weavr.facts import Field

Value = str | int | bool
Maker = Callable[[Random], Value]

_ABOVE_DOUBLES: Final = 2**53 + 1
"""From this number on, JSON readers that use doubles lose digits."""
_EPOCH_MS: Final = 1_764_000_000_000
_YEAR_MS: Final = 31_536_000_000

_FIRST: Final = ("Ada", "Jörg", "Chloé", "Oluwaseun", "Mei", "Søren")
_LAST: Final = ("Example", "Müller-Muster", "O'Sample", "Nowak", "Test", "Ångström")
_ASCII_NAMES: Final = ("Ada Example", "Jo O'Sample", "Testing Ltd.", "Sample & Sons")
_SHOPS: Final = ("Example Coffee", "Café Muster", "Sample Books", "北京 Example")
_WORDS: Final = ("Invoice", "rent", "für Ähnliches", "refund", "№ 7", "see note", "thanks")
_CURRENCIES: Final = ("EUR", "GBP", "USD", "SEK")
_COUNTRIES: Final = ("GB", "DE", "MT", "SE", "FR")
_TAGS: Final = ("batch_7", "vip-customers", "Q4", "default")
_NO_ISSUER: Final = "999999"
"""Assigned to no issuer, as in the card files."""
_OWNERS: Final = ("corporates", "consumers")


def one_of(values: Sequence[str]) -> Maker:
    """Return a maker that picks one of the values."""
    number = len(values)
    return lambda rng: values[int(rng.random() * number)]


def new_id(rng: Random) -> str:
    """Return an id: digits, above 2^53."""
    return str(_ABOVE_DOUBLES + rng.getrandbits(56))


def iban(rng: Random) -> str:
    """Return an IBAN with correct check digits, at a bank that does not exist."""
    digits = f"{rng.getrandbits(46):014d}"
    # ISO 7064 with A = 10, B = 11 and so on: the number is TEST, the digits, GB, 00
    rest = int(f"29142829{digits}161100") % 97
    return f"GB{98 - rest:02d}TEST{digits}"


def _digits(number: int) -> Maker:
    bound = 10**number
    return lambda rng: f"{int(rng.random() * bound):0{number}d}"


def _millis(rng: Random) -> int:
    return _EPOCH_MS + int(rng.random() * _YEAR_MS)


def _cents(rng: Random) -> int:
    return int(rng.random() * 500_000)


def _email(rng: Random) -> str:
    return f"someone.{rng.getrandbits(24)}@example.com"


def _person(rng: Random) -> str:
    return f"{_FIRST[int(rng.random() * 6)]} {_LAST[int(rng.random() * 6)]}"


def _address(rng: Random) -> str:
    return f"{1 + int(rng.random() * 200)} Example Street"


def _mmyy(rng: Random) -> str:
    return f"{1 + int(rng.random() * 12):02d}{27 + int(rng.random() * 6)}"


def _born(rng: Random) -> str:
    return f"{1950 + int(rng.random() * 50)}-{1 + int(rng.random() * 12):02d}-{1 + int(rng.random() * 28):02d}"


def _text(rng: Random) -> str:
    return f"{_WORDS[int(rng.random() * 7)]} {_WORDS[int(rng.random() * 7)]} {rng.getrandbits(12)}"


_BY_NAME: Final[tuple[tuple[str, Maker], ...]] = (
    ("email", _email),
    ("url$", lambda rng: f"https://shop.example.com/{rng.getrandbits(20)}"),
    ("iban$", iban),
    ("^swift$|identifiercode", one_of(("TESTGB2L", "TESTDEFFXXX"))),
    ("sortcode", _digits(6)),
    ("accountnumber", _digits(8)),
    ("mmyy", _mmyy),
    ("country|nationality", one_of(_COUNTRIES)),
    ("postalcode|postcode", lambda rng: f"EX{1 + int(rng.random() * 9)} 4MP"),
    ("telephone|contactnumber", lambda rng: f"+442079460{int(rng.random() * 1000):03d}"),
    ("categorycode", _digits(4)),
    ("authcode", _digits(6)),
    ("(^|[a-z])id$", new_id),
    ("exchangerate", lambda rng: f"1.{int(rng.random() * 10_000):04d}"),
    ("token", lambda rng: f"sandbox-token-{rng.getrandbits(96):024x}"),
    ("^merchant.*name|nameother", one_of(_SHOPS)),
    ("firstname|middlename", one_of(_FIRST)),
    ("lastname|surname$", one_of(_LAST)),
    ("address|street", _address),
    ("name|^beneficiary$", _person),
    ("city", one_of(("Exampleton", "Musterstadt", "Zürich"))),
    ("refs$", lambda rng: f"ref-{rng.getrandbits(20)}"),
    ("^type$", one_of(("PASSWORD", "OTP", "PUSH"))),
)
"""Makers of texts without a pattern. The first expression found in the lower-case name decides."""

_NUMBERS: Final[tuple[tuple[str, Maker], ...]] = (
    ("timestamp|date$", lambda rng: str(_millis(rng))),
    ("id$", new_id),
    ("", lambda rng: str(_cents(rng))),
)
"""Makers of texts of digits. Times are epoch milliseconds; all fields except ids and times are amounts."""

_INTEGERS: Final[tuple[tuple[str, Maker], ...]] = (
    ("timestamp", _millis),
    ("ids$", lambda rng: _ABOVE_DOUBLES + rng.getrandbits(56)),
    ("scale", lambda rng: int(rng.random() * 6)),
    ("", _cents),
)

_BY_KIND: Final[Mapping[str, tuple[tuple[str, Maker], ...]]] = {
    "boolean": (("", lambda rng: bool(rng.getrandbits(1))),),
    "date": (("", _born),),
    "integer": _INTEGERS,
}

_COUNTRY: Final = one_of(_COUNTRIES)
_TAG: Final = one_of(_TAGS)
_BY_PATTERN: Final[Mapping[str, Maker]] = {
    r"^[A-Z]*$": one_of(_CURRENCIES),
    r"^[A-Z]+$": _COUNTRY,
    r"^[A-Z]{2}$": _COUNTRY,
    r"^$|^[A-Z]+$": _COUNTRY,
    r"^[a-zA-Z0-9_-]+$": _TAG,
    r"^$|^[a-zA-Z0-9_-]+$": _TAG,
    r"^[ a-zA-Z0-9_-]+$": one_of(("asked by customer", "duplicate", "no-reason_given")),
    r"^[A-Za-z0-9 -]*$": one_of(("EX1 4MP", "12345", "SW1-0AA")),
    r"^\+[0-9]+$": lambda rng: f"+442079460{int(rng.random() * 1000):03d}",
    r"^[0-9]{4}$": _digits(4),
    r"^[0-9]{6}$": _digits(6),
    r"^[0-9]{8}$": _digits(8),
    r"^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$": iban,
    r"^[a-zA-Z0-9]{4}[a-zA-Z]{2}[a-zA-Z0-9]{2}[a-zA-Z0-9]{0,3}$": one_of(("TESTGB2L", "TESTDEFFXXX")),
    r"^[a-zA-Z0-9]{1,34}$": iban,
    r"^[a-zA-Z0-9]{8,11}$": one_of(("TESTGB2L", "TESTDEFFXXX")),
}
_DIGITS: Final = frozenset({r"^[0-9]+$", r"^$|^[0-9]+$"})
_ANYTHING: Final = r"^$|^.*$"


def value_of(field: Field) -> Maker:
    """Return a maker of values for a field without fields of its own.

    Raises:
        ValueError: The description has a pattern that this module does not know.
    """
    name = field.name.lower()
    if field.values:
        return one_of(field.values)
    if field.kind in _BY_KIND:
        return _found(_BY_KIND[field.kind], name)
    if field.pattern is None or field.pattern == _ANYTHING:
        return _found(_BY_NAME, name)
    return _patterned(field, field.pattern)


def _patterned(field: Field, pattern: str) -> Maker:
    if pattern in _DIGITS:
        return _found(_NUMBERS, field.name.lower())
    if field.name == "type":  # the description does not say whose id is next to it
        return one_of(_OWNERS)
    if field.name == "cardNumberFirstSix":
        return lambda _rng: _NO_ISSUER
    if pattern.startswith(r"^[a-zA-Z0-9\/"):  # texts that go to banks, which are ASCII only
        return one_of(_ASCII_NAMES) if field.name == "name" else lambda rng: f"Invoice {rng.getrandbits(16)}, thanks"
    if pattern not in _BY_PATTERN:
        raise ValueError(f"{field.name}: the pattern {pattern!r} is not known")
    return _BY_PATTERN[pattern]


def _found(rules: Sequence[tuple[str, Maker]], name: str) -> Maker:
    return next((maker for expression, maker in rules if re.search(expression, name)), _text)
