"""Synthetic card files of any size, made from a seed, and the ledger of their contents.

A record depends only on the seed and its number. So the ledger is enough to compute any record again, and to check a
result without the file. No number belongs to an issuer: 999999 is not assigned.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import IO, Annotated, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

BadKind = Literal["luhn", "letters", "short", "empty", "missing"]
"""The fault of a bad card: check digit, a letter, too few digits, no number, or missing fields at the end."""

PREFIX: Final = "999999"
"""ISO/IEC 7812 leaves industry digit 9 to national bodies, and 999999 to nobody: these numbers reach no issuer."""

FIRST_SIX_DIGITS: Final = 100_001

_MASK: Final = (1 << 64) - 1
_BLOCK: Final = 64
_WRITE_BYTES: Final = 1 << 18
_STEP: Final = 3**18  # prime to ten: n -> n * _STEP + offset visits every nine-digit number once
_HOLDERS: Final = ("ADA LOVELACE", "GRACE HOPPER", "ALAN TURING", "EDSGER DIJKSTRA", "KATHERINE JOHNSON", "ZOË MÜLLER")
_NOTES: Final = (
    'said "hello", twice',
    "first line{eol}second line",
    "café, Łódź, 東京",
    'a "quoted" word',
    "one,two,,four",
)


class CardFile(BaseModel):
    """The description of a synthetic card file. Equal values give equal bytes on every machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=1, description="Seed for numbers, holders and bad cards")
    records: int | None = Field(
        default=None, ge=0, description="Number of cards; default 200 unless size_bytes is given"
    )
    size_bytes: int | None = Field(
        default=None, ge=1, description="Write cards until the file has at least this many bytes, before compression"
    )
    bad_share: float = Field(default=0.0, ge=0, le=1, description="Share of bad cards")
    bad_kinds: Annotated[tuple[BadKind, ...], Field(min_length=1)] = ("luhn", "letters", "short", "empty", "missing")
    header: bool = Field(default=True, description="Whether the first record names the columns")
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    line_end: Literal["lf", "crlf"] = "lf"
    final_line_end: bool = Field(default=True, description="Whether the last record ends with a line end")
    bom: bool = Field(default=False, description="Whether the file begins with a UTF-8 byte order mark")
    gzip: bool = Field(default=False, description="Whether the file is compressed")
    cvv: bool = Field(default=False, description="Whether there is a column cvv")
    odd_notes: float = Field(
        default=0.2, ge=0, le=1, description="Share of notes with quotes, delimiters, line ends or non-ASCII letters"
    )
    note_bytes: int = Field(default=0, ge=0, le=60_000, description="Pad each note with this many characters")
    six_digits: bool = Field(default=False, description="Number the cards 100001, 100002, ... as ECS may do")
    locations: Annotated[tuple[str, ...], Field(min_length=1)] = ("46691", "32049", "30730")

    @model_validator(mode="after")
    def _one_size(self) -> CardFile:
        if self.records is not None and self.size_bytes is not None:
            raise ValueError("give records or size_bytes, not both")
        if self.six_digits and "luhn" in self.bad_kinds and self.bad_share:
            raise ValueError("six-digit numbers have no check digit: leave luhn out of bad_kinds")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        sometimes = ("cvv",) if self.cvv else ()
        return ("card_number", "expiry", "amount", "holder", "location_id", *sometimes, "note")


@dataclass(frozen=True, slots=True)
class PlantedCard:
    """One written record.

    Attributes:
        record: Record number, 1 for the first after the header.
        fields: The values in the file; fewer than columns if ``bad`` is ``missing``.
        bad: Its fault, or None.
    """

    record: int
    fields: tuple[str, ...]
    bad: BadKind | None

    @property
    def number(self) -> str:
        """The card number as it is in the file."""
        return self.fields[0]


class Ledger(BaseModel):
    """The contents of a file: totals, and the description from which every record can be computed again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: CardFile
    records: int
    bad: dict[BadKind, int]
    content_bytes: int
    """Size before compression."""
    file_bytes: int
    sha256: str
    """Hex digest of the content before compression."""

    @property
    def bad_total(self) -> int:
        """Number of bad cards."""
        return sum(self.bad.values())

    def card(self, record: int) -> PlantedCard:
        """Return the card with this number, from 1. Raises IndexError if the file has no such record."""
        if not 1 <= record <= self.records:
            raise IndexError(f"the file holds records 1 to {self.records}, not {record}")
        return plant(self.spec, record)

    def cards(self) -> Iterator[PlantedCard]:
        """Yield every card in order."""
        return (plant(self.spec, record) for record in range(1, self.records + 1))

    def bad_records(self) -> Iterator[tuple[int, BadKind]]:
        """Yield number and kind of every bad card, in order."""
        return ((card.record, card.bad) for card in self.cards() if card.bad)


def plant(spec: CardFile, record: int) -> PlantedCard:
    """Return the card with this number in every file of this description."""
    bits = _mix(spec.seed, record)
    bad = _badness(spec, record)
    number = _number(spec, record)
    if bad is not None:
        number = _spoiled(number, bad, bits)
    fields = [
        number,
        f"{1 + (bits >> 8) % 12:02d}/{28 + (bits >> 12) % 8}",
        f"{(bits >> 16) % 500_000 / 100:.2f}",
        _HOLDERS[(bits >> 36) % len(_HOLDERS)],
        spec.locations[(bits >> 40) % len(spec.locations)],
    ]
    if spec.cvv:
        fields.append(f"{(bits >> 44) % 1000:03d}")
    fields.append(_note(spec, record, bits))
    return PlantedCard(record, tuple(fields[:2] if bad == "missing" else fields), bad)


def write_cards(path: Path, spec: CardFile) -> Ledger:
    """Write a card file and return its ledger. It blocks, so call it in a thread. Needs at most 2 MB of memory.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("wb") as raw:
        if not spec.gzip:
            return _write(raw, raw, spec)
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
            written = _write(cast("IO[bytes]", packed), raw, spec)
        return written.model_copy(update={"file_bytes": raw.tell()})


def luhn_valid(number: str) -> bool:
    """Return whether the check digit is correct (ISO/IEC 7812-1, annex B)."""
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def _write(out: IO[bytes], raw: IO[bytes], spec: CardFile) -> Ledger:
    digest = hashlib.sha256()
    bad: Counter[BadKind] = Counter()
    records = size = 0
    held = b""  # hold the last piece back, in case the final line end must be left out
    for text, kinds in _blocks(spec):
        if len(held) >= _WRITE_BYTES:
            out.write(held)
            digest.update(held)
            held = b""
        data = text.encode()
        held += data
        size += len(data)
        records += len(kinds)
        bad.update(kind for kind in kinds if kind)
        if spec.size_bytes is not None and size >= spec.size_bytes:
            break
    if not spec.final_line_end and held:
        trimmed = held.removesuffix(_eol(spec).encode())
        size -= len(held) - len(trimmed)
        held = trimmed
    out.write(held)
    digest.update(held)
    return Ledger(
        spec=spec, records=records, bad=dict(bad), content_bytes=size, file_bytes=raw.tell(), sha256=digest.hexdigest()
    )


def _blocks(spec: CardFile) -> Iterator[tuple[str, list[BadKind | None]]]:
    """Yield the text of some records and their faults. The first block is the BOM and the header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=spec.delimiter, lineterminator=_eol(spec))
    if spec.header:
        writer.writerow(spec.columns)
    yield ("\ufeff" if spec.bom else "") + buffer.getvalue(), []
    numbers = count(1) if spec.size_bytes is not None else iter(range(1, _wanted(spec) + 1))
    while block := [plant(spec, number) for number in islice(numbers, _BLOCK)]:
        buffer.seek(0)
        buffer.truncate()
        writer.writerows(card.fields for card in block)
        yield buffer.getvalue(), [card.bad for card in block]


def _wanted(spec: CardFile) -> int:
    return 200 if spec.records is None else spec.records


def _eol(spec: CardFile) -> str:
    return "\r\n" if spec.line_end == "crlf" else "\n"


def _mix(seed: int, number: int) -> int:
    """Return 64 well-mixed bits of the two (splitmix64), which allows random access to any index."""
    mixed = (seed * 0xD1342543DE82EF95 + number * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def _badness(spec: CardFile, record: int) -> BadKind | None:
    if not spec.bad_share:
        return None
    bits = _mix(~spec.seed, record)
    if (bits & 0xFFFFFFFF) >= spec.bad_share * (1 << 32):
        return None
    return spec.bad_kinds[(bits >> 32) % len(spec.bad_kinds)]


def _number(spec: CardFile, record: int) -> str:
    if spec.six_digits:
        return str(FIRST_SIX_DIGITS + record - 1)
    account = (record * _STEP + _mix(spec.seed, 0)) % 10**9
    body = f"{PREFIX}{account:09d}"
    return body + _check_digit(body)


def _check_digit(body: str) -> str:
    total = 0
    for position, digit in enumerate(reversed(body)):
        value = ord(digit) - 48
        total += value if position % 2 else _DOUBLED[value]
    return str(-total % 10)


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def _spoiled(number: str, bad: BadKind, bits: int) -> str:
    match bad:
        case "luhn":
            return number[:-1] + str((int(number[-1]) + 1 + bits % 9) % 10)
        case "letters":
            return number[:3] + "ABCDEFGH"[bits % 8] + number[4:]
        case "short":
            return number[: 3 + bits % 3]
        case "empty":
            return ""
        case "missing":
            return number


def _note(spec: CardFile, record: int, bits: int) -> str:
    odd = ((bits >> 50) & 0x3FF) < spec.odd_notes * 0x400
    note = _NOTES[bits % len(_NOTES)].format(eol=_eol(spec)) if odd else f"card {record}"
    return note + "x" * spec.note_bytes
