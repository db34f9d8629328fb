"""The checks of result files and audit logs accept what is right and find what is wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from pipeline.audit.segments import GENESIS, Entry, SegmentPosition, build
from pipeline.contracts import AuditAction, AuditEvent
from pipeline.sandbox.cards import CardFile, Ledger, write_cards
from pipeline.sandbox.verify import Finding, ResultRules, expected_counts, read_audit_log, verify_result

Rows = list[list[str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return write_cards(tmp_path / "input.csv", CardFile(records=50, bad_share=0.2, cvv=True))


def right_rows(ledger: Ledger) -> Rows:
    """What a right pipeline makes of the cards: columns without cvv, status, message.

    Where fields are missing, what is left might be the cvv.
    """
    rows: Rows = [["card_number", "expiry", "amount", "holder", "location_id", "note", "status", "message"]]
    for card in ledger.cards():
        fields = list(card.fields) if len(card.fields) == 7 else [""] * 7
        rows.append([*fields[:5], fields[6], *(["failed", "not a card"] if card.bad else ["ok", ""])])
    return rows


def check(tmp_path: Path, ledger: Ledger, rows: Rows, rules: ResultRules | None = None) -> list[str]:
    path = tmp_path / "result.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return [str(finding) for finding in verify_result(path, ledger, rules)]


def test_a_right_result_has_no_findings(tmp_path: Path, ledger: Ledger) -> None:
    """Nothing is found in what a right pipeline writes."""
    assert check(tmp_path, ledger, right_rows(ledger)) == []


def test_short_records_are_padded_where_nothing_is_dropped(tmp_path: Path) -> None:
    """Without a column that must not be kept, the fields that are there stay."""
    ledger = write_cards(tmp_path / "input.csv", CardFile(records=9, bad_share=1, bad_kinds=("missing",)))
    rows = [[*card.fields, "", "", "", "", "failed", "too short"] for card in ledger.cards()]
    assert check(tmp_path, ledger, [[*ledger.spec.columns, "status", "message"], *rows]) == []
    rows[4][1] = ""
    findings = check(tmp_path, ledger, [[*ledger.spec.columns, "status", "message"], *rows])
    assert findings == [f"record 5: column expiry was changed: 0 characters instead of {len(ledger.card(5).fields[1])}"]


def test_in_short_records_only_what_might_be_a_dropped_value_is_left_out(tmp_path: Path) -> None:
    """Five fields are missing: the first of the rest may be the sixth, which is not the last one."""
    ledger = write_cards(tmp_path / "input.csv", CardFile(records=3, bad_share=1, bad_kinds=("missing",)))
    row = ["", "", "", "", "", "failed", "too short"]
    header = [*ledger.spec.columns[:5], "status", "message"]
    assert check(tmp_path, ledger, [header, row, row, row], ResultRules(dropped=("note",))) != []
    row = [ledger.card(1).fields[0], "", "", "", "", "failed", "too short"]
    findings = check(tmp_path, ledger, [header, row, row, row], ResultRules(dropped=("note",)))
    assert not any(finding.startswith("record 1:") for finding in findings)


def _swap(rows: Rows) -> None:
    rows[3], rows[4] = rows[4], rows[3]


def _change_note(rows: Rows) -> None:
    rows[2][5] = "changed"


def _change_number(rows: Rows) -> None:
    rows[2][0] = "9999990000000000"


def _lose(rows: Rows) -> None:
    del rows[-1]


def _double(rows: Rows) -> None:
    rows.append(rows[-1])


def _wrong_header(rows: Rows) -> None:
    rows[0][-1] = "reason"


def _no_header(rows: Rows) -> None:
    del rows[0]


def _odd_status(rows: Rows) -> None:
    rows[1][6] = 16 * "9"


def _all_ok(rows: Rows) -> None:
    for row in rows[1:]:
        row[6:] = ["ok", ""]


def _no_message(rows: Rows) -> None:
    for row in rows[1:]:
        row[7] = ""


def _leak(rows: Rows) -> None:
    rows[1][7] = "card 9999991234567890 is fine"


def _widen(rows: Rows) -> None:
    rows[5].append("more")


def _empty(rows: Rows) -> None:
    rows.clear()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_swap, "column card_number was changed"),
        (_change_note, "record 2: column note was changed: 7 characters instead of"),
        (_change_number, "record 2: column card_number was changed"),
        (_lose, "ends after 49 records; 50 were sent"),
        (_double, "1 records more than the 50"),
        (_wrong_header, "column 8 of the header is not 'message'"),
        (_no_header, "column 1 of the header is not 'card_number'"),
        (_odd_status, "status is a value of 16 characters, not 'failed'"),
        (_all_ok, "status is 'ok', not 'failed'"),
        (_no_message, "failed without a message"),
        (_leak, "record 1: the message holds a card number"),
        (_widen, "record 5: 9 fields instead of 8"),
        (_empty, "not even a header"),
    ],
)
def test_a_wrong_result_is_convicted(tmp_path: Path, ledger: Ledger, spoil: Callable[[Rows], None], found: str) -> None:
    """Each damage is named where it is."""
    rows = right_rows(ledger)
    spoil(rows)
    findings = check(tmp_path, ledger, rows)
    assert any(found in finding for finding in findings), findings
    assert not any("9999990000000000" in finding for finding in findings)


def test_findings_end_after_the_asked_number(tmp_path: Path, ledger: Ledger) -> None:
    """A file that is wrong everywhere does not fill the screen."""
    rows = [[*row[:5], "x", *row[6:]] for row in right_rows(ledger)]
    rows[0] = right_rows(ledger)[0]
    findings = check(tmp_path, ledger, rows, ResultRules(max_findings=3))
    assert len(findings) == 4
    assert findings[-1] == "stopped after 3 findings"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "not UTF-8"),
        (b'card_number,expiry\n"a"b,c\n', "header"),
        (b'"a"b\n', "not a CSV"),
    ],
)
def test_what_is_no_result_file_is_named(tmp_path: Path, ledger: Ledger, content: bytes | None, found: str) -> None:
    """A missing file, another encoding, a broken CSV."""
    path = tmp_path / "other.csv"
    if content is not None:
        path.write_bytes(content)
    assert found in str(verify_result(path, ledger)[0])


def test_expectations_and_own_columns_can_be_given(tmp_path: Path) -> None:
    """For a processor with rules of its own: who must fail, and which columns it adds."""
    ledger = write_cards(tmp_path / "input.csv", CardFile(records=4))
    rules = ResultRules(extra_columns=("issuer",), expected=lambda card: "failed" if card.record == 2 else "ok")
    rows = [[*card.fields, *(["failed", "no"] if card.record == 2 else ["ok", ""]), "X"] for card in ledger.cards()]
    header = [*ledger.spec.columns, "status", "message", "issuer"]
    assert check(tmp_path, ledger, [header, *rows], rules) == []
    assert expected_counts(ledger, rules) == (3, 1)


def test_a_file_without_header_has_a_result_without_header(tmp_path: Path) -> None:
    """Without a header record, the first row is the first card."""
    ledger = write_cards(tmp_path / "input.csv", CardFile(records=4, header=False))
    assert check(tmp_path, ledger, [[*card.fields, "ok", ""] for card in ledger.cards()]) == []
    assert expected_counts(ledger) == (4, 0)


def test_a_finding_about_the_file_names_no_record() -> None:
    """Only findings about a card begin with its number."""
    assert str(Finding(None, "all wrong")) == "all wrong"
    assert str(Finding(3, "wrong")) == "record 3: wrong"


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
    """That is no finding."""
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


def _lose_segment(store: Path) -> None:
    segments(store)[0].unlink()


def _garble(store: Path) -> None:
    segments(store)[1].write_bytes(b"\n")


@pytest.mark.parametrize("damage", [_change, _drop_line, _cut, _lose_segment, _garble])
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
