"""The independent reader of the audit log agrees with its writer, and finds damage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from pipeline.audit.segments import GENESIS, Entry, SegmentPosition, build
from pipeline.contracts import AuditAction, AuditEvent
from pipeline.sandbox.audit_log import read_audit_log

JOB = UUID("cffde776-1d2a-4614-8023-a5148e411462")
AT = datetime(2026, 1, 21, tzinfo=UTC)


def entry(offset: int, action: AuditAction, *, name: str | None = None, job: UUID | None = JOB) -> Entry:
    event = AuditEvent(id=name or f"id-{offset}", action=action, at=AT, actor="test", job_guid=job)
    return Entry(offset, event, event.model_dump(mode="json"), 100)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two segments of one partition, as the audit stage writes them."""
    previous, total = GENESIS, 0
    runs = (
        [entry(0, AuditAction.WEBHOOK_ACCEPTED), entry(1, AuditAction.WEBHOOK_REFUSALS, job=None)],
        [entry(2, AuditAction.JOB_ANNOUNCED)],
    )
    for number, entries in enumerate(runs):
        built = build(
            SegmentPosition("audit.events", 3, 0, number),
            entries,
            previous=previous,
            total=total,
            writer=f"w{number}",
            at=AT,
        )
        path = tmp_path / built.position.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(built.data)
        previous, total = built.closing.hash, built.closing.total
    return tmp_path


def segments(store: Path) -> list[Path]:
    return sorted(store.glob("audit/*/*/*/*.jsonl"))


def test_the_steps_of_a_job_are_read_in_order(store: Path) -> None:
    """Across segments; events of no job are left out."""
    assert read_audit_log(store) == ({str(JOB): ["webhook.accepted", "job.announced"]}, [])


def test_a_store_without_log_has_no_steps(tmp_path: Path) -> None:
    """And nothing is wrong with it."""
    assert read_audit_log(tmp_path) == ({}, [])


def _change(store: Path) -> None:
    first = segments(store)[0]
    first.write_bytes(first.read_bytes().replace(b"webhook.accepted", b"webhook.acceptee"))


def _drop_line(store: Path) -> None:
    first = segments(store)[0]
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:1] + lines[2:]))


def _cut(store: Path) -> None:
    last = segments(store)[1]
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


def _lose(store: Path) -> None:
    segments(store)[0].unlink()


def _garble(store: Path) -> None:
    segments(store)[1].write_bytes(b"\n")


@pytest.mark.parametrize("damage", [_change, _drop_line, _cut, _lose, _garble])
def test_damage_is_found(store: Path, damage: Callable[[Path], None]) -> None:
    """Whatever is changed, cut out, cut off or lost."""
    damage(store)
    _, findings = read_audit_log(store)
    assert len(findings) == 1
    assert str(findings[0]).startswith("audit log, partition audit.events/00003: segment 0")


@pytest.mark.parametrize(
    ("number", "names", "found"), [(1, ("a",), "segment 0 is missing"), (0, ("a", "a"), "event a stands twice")]
)
def test_a_chain_that_was_written_wrong_is_found(
    tmp_path: Path, number: int, names: tuple[str, ...], found: str
) -> None:
    """Right hashes do not help a log that skips a number or repeats an event."""
    entries = [entry(offset, AuditAction.JOB_STARTED, name=name) for offset, name in enumerate(names)]
    built = build(SegmentPosition("audit.events", 0, 0, number), entries, previous=GENESIS, total=0, writer="w", at=AT)
    path = tmp_path / built.position.key
    path.parent.mkdir(parents=True)
    path.write_bytes(built.data)
    assert found in str(read_audit_log(tmp_path)[1][0])
