"""The check of the second part: compare the sent events and their answers with the records in the topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.sandbox.demo.subscribing import Seen
from pipeline.sandbox.weavr import Entry, order_findings, weavr_kinds

NO_CATEGORY: Final = "(unknown path)"
_MOST_FINDINGS: Final = 20


@dataclass(frozen=True, slots=True)
class Row:
    """The numbers of one category.

    Attributes:
        sent: Deliveries, including repeats. Each counts once, however often it was tried.
        accepted: Deliveries answered with 2xx.
        refused: Deliveries answered with 4xx, or without success after the last try.
        quarantined: Records in the quarantine topics.
        repeats: Records that the subscriber skipped as repeats.
        delivered: Events that the subscriber handled.
    """

    category: str
    sent: int
    accepted: int
    refused: int
    quarantined: int
    repeats: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Topics:
    """The events in the topics.

    Attributes:
        seen: The events of each category's subscriber.
        repeats: Number of repeats that each subscriber skipped.
        quarantined: ``ce_id`` and path of every record in quarantine.
    """

    seen: Mapping[str, Seen]
    repeats: Mapping[str, int]
    quarantined: Sequence[tuple[str, str]]


def rows(entries: Sequence[Entry], topics: Topics) -> list[Row]:
    """Return one row for each category, and one for unknown paths."""
    sent, accepted = Counter[str](), Counter[str]()
    for entry in entries:
        sent[entry.category] += len(entry.deliveries)
        accepted[entry.category] += entry.outcomes.count("accepted")
    kinds = weavr_kinds()
    kept = Counter(kinds[path].category if path in kinds else "" for _, path in topics.quarantined)
    return [
        Row(
            category=category or NO_CATEGORY,
            sent=sent[category],
            accepted=accepted[category],
            refused=sent[category] - accepted[category],
            quarantined=kept[category],
            repeats=topics.repeats.get(category, 0),
            delivered=topics.seen[category].times.total() if category in topics.seen else 0,
        )
        for category in [*topics.seen, ""]
    ]


def total(found: Sequence[Row]) -> Row:
    """Return the sum of the rows."""
    return Row(
        "total",
        sum(row.sent for row in found),
        sum(row.accepted for row in found),
        sum(row.refused for row in found),
        sum(row.quarantined for row in found),
        sum(row.repeats for row in found),
        sum(row.delivered for row in found),
    )


def check(entries: Sequence[Entry], topics: Topics) -> list[str]:
    """Return at most twenty differences from the expected result, one sentence each.

    It checks that:

    - every answer is the expected one,
    - each accepted event, and no other, is handled once or in quarantine,
    - every sent repeat was found,
    - the events of an entity are in order.

    A delivery whose answer was lost or a 5xx may still have left a record, and its next try repeats that record. So
    there may be one more repeat for each such delivery.
    """
    findings = [finding for entry in entries if (finding := entry.finding())]
    findings += [*_handled(entries, topics), *_kept(entries, topics), *_sums(entries, topics)]
    findings += _order(
        entries, {ident: position for seen in topics.seen.values() for ident, position in seen.positions.items()}
    )
    findings += [
        f"event {ident} was not typed, or has another's id" for one in topics.seen.values() for ident in one.odd
    ]
    return findings[:_MOST_FINDINGS]


def _handled(entries: Sequence[Entry], topics: Topics) -> Iterator[str]:
    times = Counter[str]()
    for seen in topics.seen.values():
        times.update(seen.times)
    for entry in entries:
        if entry.expected == "accepted" and entry.accepted and times[entry.ce_id] != 1:
            yield f"event {entry.index} ({entry.path}) was accepted, and handled {times[entry.ce_id]} times"
    wanted = {entry.ce_id for entry in entries if entry.expected == "accepted" and entry.accepted}
    for ident in times.keys() - wanted:
        yield f"event {ident} was handled, and is none that was accepted"


def _kept(entries: Sequence[Entry], topics: Topics) -> Iterator[str]:
    wanted = {entry.ce_id for entry in entries if entry.expected == "quarantined" and entry.accepted}
    kept = {ident for ident, _ in topics.quarantined}
    if wanted - kept:
        yield f"{len(wanted - kept)} events that were to be quarantined are not"
    if kept - wanted:
        yield f"{len(kept - wanted)} events are in quarantine that do not belong there"


def _sums(entries: Sequence[Entry], topics: Topics) -> Iterator[str]:
    for row in rows(entries, topics):
        of = [entry for entry in entries if (entry.category or NO_CATEGORY) == row.category]
        repeats = sum(entry.outcomes.count("accepted") - 1 for entry in of if entry.accepted)
        maybe = sum(_unsure(entry) for entry in of if entry.accepted)
        if not repeats <= row.repeats <= repeats + maybe:
            yield f"{row.category}: {repeats} repeats were sent, and {row.repeats} found"
        out = row.delivered + row.repeats + row.quarantined
        if not row.accepted <= out <= row.accepted + maybe:
            yield f"{row.category}: {row.accepted} were accepted, and {out} came out"


def _order(entries: Sequence[Entry], positions: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    yield from order_findings(entries, {ident: offset for ident, (_, offset) in positions.items()})
    partitions: dict[str, set[int]] = {}
    for entry in entries:
        if entry.sequence and entry.ce_id in positions:
            partitions.setdefault(entry.entity, set()).add(positions[entry.ce_id][0])
    for entity, found in partitions.items():
        if len(found) > 1:
            yield f"events of {entity} are in more than one partition"


def _unsure(entry: Entry) -> int:
    """Return the number of failed tries that may have left a record."""
    answers = (attempt.status for attempts in entry.deliveries for attempt in attempts)
    return sum(status is None or status >= 500 for status in answers)  # noqa: PLR2004 - HTTP
