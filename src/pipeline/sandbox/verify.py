"""Verifies a result file and an audit log, with only the standard library."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.sandbox.cards import CardFile, Ledger, PlantedCard

Expected = Callable[[PlantedCard], Literal["ok", "failed"]]
"""Returns the expected status of a card."""

_LONG_NUMBER: Final = re.compile(r"\d(?:[ -]?\d){11,18}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference from the expected result. It quotes nothing of the result.

    Attributes:
        record: The card's record number, or None for the file as a whole.
        what: One sentence.
    """

    record: int | None
    what: str

    def __str__(self) -> str:
        """Render for a person."""
        return self.what if self.record is None else f"record {self.record}: {self.what}"


def as_planted(card: PlantedCard) -> Literal["ok", "failed"]:
    """Expect ``failed`` for every bad card, and ``ok`` for every other."""
    return "failed" if card.bad else "ok"


@dataclass(frozen=True, slots=True)
class ResultRules:
    """The rules for the result file of an integration.

    Attributes:
        dropped: Input columns that must not be in the result. If a record lacks fields, a value may be under another
            column's name. So fields that could hold a value of a dropped column must be empty (docs/reference/csv.md).
        extra_columns: The processor's own columns, after the message.
        expected: Returns the expected status of each card.
        max_findings: Stop after this many.
    """

    status_column: str = "status"
    message_column: str = "message"
    dropped: tuple[str, ...] = ("cvv",)
    extra_columns: tuple[str, ...] = ()
    expected: Expected = field(default=as_planted)
    max_findings: int = 20

    def kept(self, spec: CardFile) -> tuple[str, ...]:
        """Names of the input columns that the result echoes, in order."""
        return tuple(name for name in spec.columns if name not in self.dropped)

    def header(self, spec: CardFile) -> tuple[str, ...]:
        """Names of all result columns, in order."""
        return (*self.kept(spec), self.status_column, self.message_column, *self.extra_columns)


def verify_result(result: Path, ledger: Ledger, rules: ResultRules | None = None) -> list[Finding]:
    """Compare a result file with its input, record by record. An empty list means that everything is correct.

    Blocking: call it in a thread. Memory does not grow with the file.
    """
    rules = rules or ResultRules()
    findings: list[Finding] = []
    try:
        with result.open(encoding="utf-8", newline="") as text:
            rows = csv.reader(text, delimiter=ledger.spec.delimiter, strict=True)
            for finding in _compare(rows, ledger, rules):
                findings.append(finding)
                if len(findings) >= rules.max_findings:
                    findings.append(Finding(None, f"stopped after {rules.max_findings} findings"))
                    break
    except OSError as error:
        findings.append(Finding(None, f"the result file cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        findings.append(Finding(None, f"the result is not UTF-8 ({error.reason})"))
    except csv.Error as error:
        findings.append(Finding(None, f"the result is not a CSV: {error}"))
    return findings


def expected_counts(ledger: Ledger, rules: ResultRules | None = None) -> tuple[int, int]:
    """Return how many cards must be ok and how many failed."""
    expected = (rules or ResultRules()).expected
    failed = sum(expected(card) == "failed" for card in ledger.cards())
    return ledger.records - failed, failed


def _compare(rows: Iterator[list[str]], ledger: Ledger, rules: ResultRules) -> Iterator[Finding]:
    header = rules.header(ledger.spec)
    if ledger.spec.header:
        found = next(rows, None)
        if found is None:
            yield Finding(None, "the result is empty: not even a header")
            return
        if tuple(found) != header:
            yield Finding(None, _wrong_header(found, header))
            return
    for card in ledger.cards():
        row = next(rows, None)
        if row is None:
            yield Finding(None, f"the result ends after {card.record - 1} records; {ledger.records} were sent")
            return
        yield from _compare_card(row, card, ledger.spec, rules)
    surplus = sum(1 for _ in rows)
    if surplus:
        yield Finding(None, f"the result holds {surplus} records more than the {ledger.records} that were sent")


def _compare_card(row: Sequence[str], card: PlantedCard, spec: CardFile, rules: ResultRules) -> Iterator[Finding]:
    width = len(rules.header(spec))
    if len(row) != width:
        yield Finding(card.record, f"{len(row)} fields instead of {width}")
        return
    planted = _echoed(card, spec, rules)
    kept = rules.kept(spec)
    for name, found in zip(kept, row, strict=False):
        wanted = planted.get(name, "")
        if found != wanted:
            change = f"{len(found)} characters instead of {len(wanted)}"
            yield Finding(card.record, f"column {name} was changed: {change}")
    status, message = row[len(kept)], row[len(kept) + 1]
    expected = rules.expected(card)
    if status != expected:
        known = repr(status) if status in {"ok", "failed"} else f"a value of {len(status)} characters"
        yield Finding(card.record, f"status is {known}, not {expected!r} (planted: {card.bad or 'a good card'})")
    if status == "failed" and not message:
        yield Finding(card.record, "failed without a message")
    if _LONG_NUMBER.search(message) or (len(card.number) >= 6 and card.number in message):  # noqa: PLR2004 - ECS numbers have six digits or more
        yield Finding(card.record, "the message holds a card number")


def _echoed(card: PlantedCard, spec: CardFile, rules: ResultRules) -> dict[str, str]:
    """Return the expected value for each input column that the record has."""
    named = dict(zip(spec.columns, card.fields, strict=False))
    missing = len(spec.columns) - len(card.fields)
    if missing:
        # each missing field may have been left out before this one, which then moves that many columns to the left
        for position, name in enumerate(list(named)):
            if not set(rules.dropped).isdisjoint(spec.columns[position : position + missing + 1]):
                named[name] = ""
    return named


def _wrong_header(found: Sequence[str], header: Sequence[str]) -> str:
    """Return the fault of a header. The line may be a card if the header is missing."""
    if len(found) != len(header):
        return f"the header has {len(found)} columns, not {len(header)}"
    number, name = next((number, name) for number, name in enumerate(header, start=1) if found[number - 1] != name)
    return f"column {number} of the header is not {name!r}"


_GENESIS: Final = "0" * 64
_HASH: Final = b',"hash":"'


def read_audit_log(store: Path) -> tuple[dict[str, list[str]], list[Finding]]:
    """Return the steps of each job in the order of time, and the faults of the chains. It blocks.

    Args:
        store: Folder of the local job store.
    """
    steps: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    findings: list[Finding] = []
    for partition in sorted((store / "audit").glob("*/*")):
        try:
            for event in _chain(partition):
                if guid := event["event"].get("job_guid"):
                    steps[guid].append((datetime.fromisoformat(event["event"]["at"]), event["event"]["action"]))
        except (_Broken, ValueError, KeyError, OSError) as error:
            name = f"{partition.parent.name}/{partition.name}"
            findings.append(Finding(None, f"audit log, partition {name}: {error}"))
    return {guid: [action for _, action in sorted(found, key=_time)] for guid, found in steps.items()}, findings


def _time(step: tuple[datetime, str]) -> datetime:
    return step[0]


class _Broken(Exception):
    """The hash chain is broken."""


def _chain(partition: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of one partition, every line checked against the line before."""
    running, seen = _GENESIS, set[str]()
    for number, segment in enumerate(sorted(partition.glob("*/*.jsonl"))):
        lines = segment.read_bytes().splitlines(keepends=True)
        parsed = []
        for line_number, line in enumerate(lines, start=1):
            text, _, end = line.rpartition(_HASH)
            running = hashlib.sha256(running.encode() + text).hexdigest()
            if end != f'{running}"}}\n'.encode():
                raise _Broken(
                    f"segment {segment.name}, line {line_number}: its hash does not follow from the previous line"
                )
            parsed.append(json.loads(line))
        if [line["kind"] for line in parsed] != ["segment", *["event"] * (len(parsed) - 2), "closing"]:
            raise _Broken(f"segment {segment.name} is not a header, events and a closing line")
        if parsed[0]["segment"] != number:
            raise _Broken(f"segment {number} is missing")
        for event in parsed[1:-1]:
            if event["id"] in seen:
                raise _Broken(f"segment {segment.name}: event {event['id']} stands twice")
            seen.add(event["id"])
            yield event
