"""The ledger: sent events, their answers, and the differences from the expected answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TextIO

from pipeline.sandbox.weavr.events import Broken, Event, Expected, SendOutcome

RETRIED: Final = frozenset({408, 409, 425, *range(500, 600)})
"""Answers after which Weavr sends an event again. It also sends it again if there is no answer."""
_SUCCESS: Final = range(200, 300)
_UNVERIFIED: Final = 503
_MOST_FINDINGS: Final = 20


def retried(status: int | None) -> bool:
    """Return whether Weavr sends an event again after this answer; None is no answer."""
    return status is None or status in RETRIED


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request.

    Attributes:
        at: When it began, in seconds since 1970, from a clock that never jumps.
        seconds: Its duration.
        status: HTTP status; None if there was no answer.
    """

    at: float
    seconds: float
    status: int | None

    @property
    def end(self) -> float:
        """When the answer arrived."""
        return self.at + self.seconds


@dataclass(slots=True)
class Entry:
    """The attempts to send one event.

    Attributes:
        deliveries: The attempts of each delivery: the first and, if the event was repeated, the second.
    """

    index: int
    path: str
    category: str
    entity: str
    sequence: int
    reference: str
    ce_id: str
    expected: Expected
    broken: Broken | None = None
    late: bool = False
    deliveries: list[list[Attempt]] = field(default_factory=list)

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return the entry of an event before it is sent."""
        return cls(
            index=event.index,
            path=event.path,
            category=event.category,
            entity=event.entity,
            sequence=event.sequence,
            reference=event.reference,
            ce_id=event.ce_id,
            expected=event.expected,
            broken=event.broken,
            late=event.late,
        )

    @property
    def outcomes(self) -> list[SendOutcome]:
        """The outcome of each delivery."""
        return [_outcome(attempts) for attempts in self.deliveries]

    @property
    def accepted(self) -> bool:
        """Whether any delivery was accepted."""
        return "accepted" in self.outcomes

    def finding(self) -> str | None:
        """Return the difference from the expected outcome, or None."""
        wanted = "refused" if self.expected == "refused" else "given up"
        for attempts, outcome in zip(self.deliveries, self.outcomes, strict=True):
            right = outcome == ("accepted" if self.expected in ("accepted", "quarantined") else wanted)
            if self.expected == "unverified":
                right = right and {attempt.status for attempt in attempts} == {_UNVERIFIED}
            if not right:
                answers = ", ".join(str(attempt.status or "none") for attempt in attempts)
                what = f", {self.broken}" if self.broken else ""
                return f"event {self.index} ({self.path}{what}) must be {self.expected}; answers: {answers}"
        return None


def _outcome(attempts: list[Attempt]) -> SendOutcome:
    status = attempts[-1].status
    if status in _SUCCESS:
        return "accepted"
    return "given up" if retried(status) else "refused"


@dataclass(slots=True)
class Totals:
    """Sums of all entries so far.

    Attributes:
        events: Number of finished events.
        sent: Deliveries, repeats included: each counts once, however often it was tried.
        requests: Attempts.
        repeats: Deliveries of events that had been accepted before.
        statuses: Number of attempts by HTTP status; None: no answer.
        outcomes: Number of deliveries by outcome.
        quarantined: Accepted deliveries of events that belong in quarantine.
        broken: Broken events by kind.
        findings: The first twenty differences.
        wrong: Number of all differences.
    """

    events: int = 0
    sent: int = 0
    requests: int = 0
    repeats: int = 0
    statuses: Counter[int | None] = field(default_factory=Counter)
    outcomes: Counter[SendOutcome] = field(default_factory=Counter)
    quarantined: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    wrong: int = 0

    def add(self, entry: Entry) -> None:
        """Count a finished entry."""
        self.events += 1
        self.sent += len(entry.deliveries)
        self.repeats += len(entry.deliveries) - 1
        for attempts in entry.deliveries:
            self.requests += len(attempts)
            self.statuses.update(attempt.status for attempt in attempts)
        self.outcomes.update(entry.outcomes)
        if entry.expected == "quarantined":
            self.quarantined += entry.outcomes.count("accepted")
        if entry.broken:
            self.broken[entry.broken] += 1
        finding = entry.finding()
        if finding:
            self.wrong += 1
            if len(self.findings) < _MOST_FINDINGS:
                self.findings.append(finding)

    def view(self) -> dict[str, object]:
        """Return all sums as JSON values."""
        return {
            "events": self.events,
            "sent": self.sent,
            "requests": self.requests,
            "repeats": self.repeats,
            "answers": {str(status or "none"): number for status, number in sorted(self.statuses.items(), key=str)},
            "accepted": self.outcomes["accepted"],
            "quarantined": self.quarantined,
            "refused": self.outcomes["refused"],
            "given_up": self.outcomes["given up"],
            "broken": dict(sorted(self.broken.items())),
            "wrong": self.wrong,
            "findings": self.findings,
        }


def write_entry(file: TextIO, entry: Entry) -> None:
    """Append an entry as a line of JSON, without body and headers."""
    file.write(json.dumps(asdict(entry)) + "\n")


def read_ledger(path: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger file, in the order in which their events were finished."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            found: dict[str, Any] = json.loads(line)
            found["deliveries"] = [[Attempt(**one) for one in attempts] for attempts in found["deliveries"]]
            found["broken"] = Broken(found["broken"]) if found["broken"] else None
            yield Entry(**found)


def order_findings(entries: Iterable[Entry], offsets: Mapping[str, int]) -> list[str]:
    """Return a sentence for each event that is out of order.

    If one event of an entity was accepted before another was first sent, it must come first in the topic. For events
    that were in flight at the same time, nothing is promised.

    Args:
        entries: Entries of the ledger.
        offsets: Offset of the first record of each ``ce_id``. All events of one entity are in one partition.
    """
    entities: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.sequence and entry.accepted and entry.ce_id in offsets:
            entities.setdefault(entry.entity, []).append(entry)
    return [finding for found in entities.values() for finding in _order(found, offsets)]


def _order(entries: list[Entry], offsets: Mapping[str, int]) -> Iterator[str]:
    begun = sorted(entries, key=lambda entry: entry.deliveries[0][0].at)
    ended = sorted(entries, key=lambda entry: entry.deliveries[0][-1].end)
    latest, known = -1, 0
    for entry in begun:
        while ended[known].deliveries[0][-1].end < entry.deliveries[0][0].at:
            latest = max(latest, offsets[ended[known].ce_id])
            known += 1
        if offsets[entry.ce_id] < latest:
            yield f"event {entry.index} of {entry.entity} stands before one that was accepted before it was sent"
