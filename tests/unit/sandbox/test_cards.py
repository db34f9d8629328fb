"""Synthetic card files: deterministic, recomputable, never real."""

from __future__ import annotations

import csv
import gzip
import hashlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.sandbox.cards import CardFile, Ledger, luhn_valid, plant, write_cards


def rows_of(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        return list(csv.reader(text, delimiter=delimiter, strict=True))


def test_a_file_holds_exactly_what_its_ledger_computes_again(tmp_path: Path) -> None:
    """Every row read by the stdlib equals the card recomputed from seed and number."""
    spec = CardFile(records=500, bad_share=0.1, cvv=True, seed=7)
    ledger = write_cards(tmp_path / "cards.csv", spec)
    header, *rows = rows_of(tmp_path / "cards.csv")
    assert header == list(spec.columns)
    assert rows == [list(card.fields) for card in ledger.cards()]
    assert ledger.card(17).fields == tuple(rows[16])


def test_equal_descriptions_give_equal_bytes_and_other_seeds_other_ones(tmp_path: Path) -> None:
    """The bytes depend on the description alone."""
    one = write_cards(tmp_path / "1", CardFile(records=100, seed=1))
    again = write_cards(tmp_path / "2", CardFile(records=100, seed=1))
    other = write_cards(tmp_path / "3", CardFile(records=100, seed=2))
    assert one.sha256 == again.sha256 == hashlib.sha256((tmp_path / "1").read_bytes()).hexdigest()
    assert other.sha256 != one.sha256


def test_good_numbers_are_distinct_valid_by_luhn_and_of_no_issuer() -> None:
    """Every good number is new, has a right check digit, and begins with 999999."""
    numbers = [plant(CardFile(), record).number for record in range(1, 3001)]
    assert len(set(numbers)) == len(numbers)
    assert all(luhn_valid(number) and number.startswith("999999") and len(number) == 16 for number in numbers)


def test_luhn_agrees_with_the_documented_example() -> None:
    """The example number of ISO/IEC 7812-1 is valid, its neighbour is not."""
    assert luhn_valid("79927398713")
    assert not luhn_valid("79927398714")


@pytest.mark.parametrize("kind", ["luhn", "letters", "short", "empty", "missing"])
def test_each_kind_of_bad_card_is_bad_in_its_own_way(kind: str) -> None:
    """A card that should be bad is never good by chance."""
    spec = CardFile.model_validate({"bad_share": 1.0, "bad_kinds": [kind]})
    for record in range(1, 300):
        card = plant(spec, record)
        assert card.bad == kind
        number = card.number
        match kind:
            case "luhn":
                assert len(number) == 16
                assert not luhn_valid(number)
            case "letters":
                assert not number.isdigit()
            case "short":
                assert 3 <= len(number) <= 5
            case "empty":
                assert number == ""
            case _:
                assert len(card.fields) == 2


def test_the_ledger_counts_and_names_the_bad_cards(tmp_path: Path) -> None:
    """Counts by kind add up to the listed bad records, near the asked share."""
    ledger = write_cards(tmp_path / "cards.csv", CardFile(records=4000, bad_share=0.05))
    listed = list(ledger.bad_records())
    assert len(listed) == ledger.bad_total
    assert 120 < ledger.bad_total < 280
    assert all(ledger.card(record).bad == kind for record, kind in listed)


def test_a_ledger_survives_json(tmp_path: Path) -> None:
    """Another process can verify with what the control API returns."""
    ledger = write_cards(tmp_path / "cards.csv", CardFile(records=10, bad_share=0.5))
    assert Ledger.model_validate_json(ledger.model_dump_json()) == ledger


def test_a_record_outside_of_the_file_is_an_index_error(tmp_path: Path) -> None:
    """Records count from 1 to the file's number."""
    ledger = write_cards(tmp_path / "cards.csv", CardFile(records=3))
    for record in (0, 4):
        with pytest.raises(IndexError, match="1 to 3"):
            ledger.card(record)


def test_a_file_of_a_given_size_ends_soon_after_it(tmp_path: Path) -> None:
    """The size is reached, and passed by less than a block of records."""
    ledger = write_cards(tmp_path / "cards.csv", CardFile(size_bytes=300_000))
    assert 300_000 <= ledger.content_bytes < 310_000
    assert ledger.content_bytes == (tmp_path / "cards.csv").stat().st_size
    assert len(rows_of(tmp_path / "cards.csv")) == ledger.records + 1


def test_gzip_holds_the_same_content(tmp_path: Path) -> None:
    """Compression changes the file, not the content or its digest; and is itself deterministic."""
    plain = write_cards(tmp_path / "plain", CardFile(records=300))
    packed = write_cards(tmp_path / "packed", CardFile(records=300, gzip=True))
    raw = (tmp_path / "packed").read_bytes()
    assert gzip.decompress(raw) == (tmp_path / "plain").read_bytes()
    assert (packed.sha256, packed.content_bytes) == (plain.sha256, plain.content_bytes)
    assert packed.file_bytes == len(raw)


@given(
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["lf", "crlf"]),
    header=st.booleans(),
    bom=st.booleans(),
    final=st.booleans(),
    records=st.integers(0, 200),
)
def test_every_format_reads_back(  # noqa: PLR0917 - hypothesis passes keywords
    tmp_path_factory: pytest.TempPathFactory,
    delimiter: str,
    line_end: str,
    header: bool,  # noqa: FBT001
    bom: bool,  # noqa: FBT001
    final: bool,  # noqa: FBT001
    records: int,
) -> None:
    """Whatever delimiter, line end, BOM and header: the stdlib reads what the ledger says, and sizes are right."""
    path = tmp_path_factory.getbasetemp() / "format.csv"
    spec = CardFile.model_validate(
        {
            "delimiter": delimiter,
            "line_end": line_end,
            "header": header,
            "bom": bom,
            "final_line_end": final,
            "records": records,
            "odd_notes": 1.0,
        }
    )
    ledger = write_cards(path, spec)
    raw = path.read_bytes()
    assert len(raw) == ledger.content_bytes == ledger.file_bytes
    assert hashlib.sha256(raw).hexdigest() == ledger.sha256
    assert raw.startswith(b"\xef\xbb\xbf") == bom
    rows = rows_of(path, delimiter)
    assert rows[header:] == [list(card.fields) for card in ledger.cards()]
    if records:
        assert raw.endswith(b"\n") == final


def test_notes_hold_quotes_delimiters_line_ends_and_foreign_letters(tmp_path: Path) -> None:
    """A share of the notes is hard to read; padding makes fields long."""
    write_cards(tmp_path / "cards.csv", CardFile(records=200, odd_notes=1.0, note_bytes=50))
    text = (tmp_path / "cards.csv").read_text("utf-8")
    assert '""hello""' in text
    assert "first line\nsecond line" in text
    assert "東京" in text
    assert "x" * 50 in text


def test_six_digit_numbers_count_from_100001() -> None:
    """As ECS may number its cards."""
    spec = CardFile(six_digits=True)
    assert [plant(spec, record).number for record in (1, 2, 3)] == ["100001", "100002", "100003"]


def test_contradictions_are_refused() -> None:
    """Two sizes, or a check digit in six-digit numbers, make no sense."""
    with pytest.raises(ValidationError, match="not both"):
        CardFile(records=1, size_bytes=1)
    with pytest.raises(ValidationError, match="leave luhn out"):
        CardFile(six_digits=True, bad_share=0.1)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten times the records need no more memory."""

    def peak(records: int) -> int:
        tracemalloc.start()
        write_cards(tmp_path / "cards.csv", CardFile(records=records))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(20_000) < 1.3 * peak(10_000) < 4_000_000
