"""Chunks of whole records, and what fails a file: each row of facts on CSV that concerns where records end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.csv_files import HEADLESS, LIMITS, SETTINGS, cuts, files, hostile_bytes

from pipeline.jobs.csv_engine import Chunk, CsvError, CsvLimits, CsvSettings, Position, Splitter
from pipeline.jobs.csv_engine.header import separator_line

SMALL = CsvLimits(chunk_bytes=1024, chunk_records=3)


def split(
    data: bytes, cuts: Iterable[int] = (), settings: CsvSettings | None = None, limits: CsvLimits = SMALL
) -> tuple[list[Chunk], bytes | None, CsvError | None]:
    """Return chunks, header and error of a file that arrives in pieces."""
    splitter = Splitter(settings or CsvSettings(), limits)
    chunks: list[Chunk] = []
    edges = [0, *sorted(cuts), len(data)]
    try:
        for begin, end in pairwise(edges):
            chunks += splitter.feed(data[begin:end])
        chunks += splitter.finish()
    except CsvError as error:
        return chunks, splitter.header, error
    return chunks, splitter.header, None


def refusal(data: bytes, settings: CsvSettings | None = None, limits: CsvLimits = SMALL) -> tuple[str, int | None]:
    """Return code and line of the error; the same one for two very different cuttings."""
    _, _, error = split(data, (), settings, limits)
    _, _, again = split(data, range(len(data)), settings, limits)
    assert error is not None
    assert again is not None
    assert (error.code, error.message, error.line) == (again.code, again.message, again.line)
    return error.code, error.line


def test_a_chunk_closes_at_its_record_bound() -> None:
    """Three records a chunk: seven records make three chunks."""
    chunks, header, error = split(b"a\n1\n2\n3\n4\n5\n6\n7\n")
    assert error is None
    assert header == b"a\n"
    assert [chunk.data for chunk in chunks] == [b"1\n2\n3\n", b"4\n5\n6\n", b"7\n"]
    assert [chunk.number for chunk in chunks] == [0, 1, 2]
    assert [chunk.records for chunk in chunks] == [3, 3, 1]


def test_a_chunk_closes_at_its_byte_bound() -> None:
    """With 400-byte records a chunk of 1,024 bytes closes after the third."""
    record = b"x" * 399 + b"\n"
    chunks, _, _ = split(b"a\n" + record * 7, limits=CsvLimits(chunk_bytes=1024))
    assert [len(chunk.data) for chunk in chunks] == [1200, 1200, 400]


def test_positions_count_bytes_records_and_lines() -> None:
    """A BOM and the header count as bytes; a quoted field may span lines; blank lines count as lines only."""
    chunks, _, _ = split(b'\xef\xbb\xbfa,b\r\n1,"x\ny"\r\n\r\n2,\r\n3,\r\n4,')
    assert [(chunk.start, chunk.end) for chunk in chunks] == [
        (Position(), Position(byte=27, record=3, line=6)),
        (Position(byte=27, record=3, line=6), Position(byte=29, record=4, line=6)),
    ]


def test_line_feed_and_carriage_return_line_feed_may_be_mixed() -> None:
    """Both end a record, and the bytes do not change."""
    chunks, header, _ = split(b"a\r\n1\n2\r\n")
    assert header == b"a\r\n"
    assert chunks[0].data == b"1\n2\r\n"
    assert chunks[0].records == 2


@pytest.mark.parametrize(
    ("data", "line"), [(b"a\r1\r2\r", 1), (b"a\n1\r", 2), (b"a\n1\rx\n", 2), (b'a\n"1"\rx\n', 2), (b"a\r\r\n1\n", 1)]
)
def test_a_lone_carriage_return_fails_the_file(data: bytes, line: int) -> None:
    """Outside quotes it is neither a line end nor text."""
    assert refusal(data) == ("csv_lone_carriage_return", line)


def test_a_lone_carriage_return_inside_quotes_is_text() -> None:
    """Nothing inside quotes is a line end."""
    chunks, _, error = split(b'a\n"1\r2"\n')
    assert error is None
    assert chunks[0].records == 1


def test_separators_of_text_mode_are_text() -> None:
    """U+2028, U+0085, vertical tab and file separator end no record."""
    chunks, _, _ = split("a\n1\u20282\x0b3\x1c4\x855\n".encode())
    assert chunks[0].records == 1


def test_newlines_and_doubled_quotes_inside_quotes_are_text() -> None:
    """A record ends where the number of quotes before its newline is even."""
    chunks, _, _ = split(b'a,b\n"1\n""\n2",x\n3,""\n')
    assert [chunk.records for chunk in chunks] == [2]


@pytest.mark.parametrize(
    ("data", "line"),
    [(b'a\n1\n"2\n3\n4\n', 3), (b'a\n"', 2), (b'"a', 1), (b'a,b\n"x\ny",\n1,"\n', 4), (b'a\n"1""\n', 2)],
)
def test_a_quote_that_never_ends_names_the_line_where_it_began(data: bytes, line: int) -> None:
    """Instead of swallowing all following rows in one field."""
    assert refusal(data) == ("csv_unterminated_quote", line)


def test_a_quote_open_beyond_the_record_limit_names_its_line() -> None:
    """The rest of a large file is not read to find out."""
    data = b'a,b\n1,2\n3,"' + b"4\n" * 600
    assert refusal(data, limits=CsvLimits(max_record_bytes=1000)) == ("csv_unterminated_quote", 3)


@pytest.mark.parametrize(
    ("data", "line"), [(b'a,b\n1,x"y\n', 2), (b'a,b\n1,x"y"\n', 2), (b'a\n1\n "2"\n', 3), (b'a\n"1"x"y"\n', 2)]
)
def test_a_quote_inside_an_unquoted_field_fails_the_file(data: bytes, line: int) -> None:
    """After it, the ends of records are uncertain."""
    assert refusal(data) == ("csv_quote_in_unquoted_field", line)


def test_text_after_a_closing_quote_is_left_to_the_record() -> None:
    """Its record fails later; the file can still be cut."""
    chunks, _, error = split(b'a,b\n"1"x,2\n3,4\n')
    assert error is None
    assert chunks[0].records == 2


def test_a_field_over_its_limit_fails_the_file() -> None:
    """The line is the one where the field begins."""
    limits = CsvLimits(max_field_bytes=10)
    assert refusal(b"a,b\n1,2\n3,12345678901\n", limits=limits) == ("csv_field_too_large", 3)
    assert refusal(b'a,b\n"1234567\n","12345678\n9"\n', limits=limits) == ("csv_field_too_large", 3)
    _, _, error = split(b"a,b\n1,2\n3,1234567890\r\n1234567890,\n,1234567890", limits=limits)
    assert error is None


def test_a_record_over_its_limit_fails_the_file() -> None:
    """The limit includes the line end, even before the line end has arrived."""
    limits = CsvLimits(max_record_bytes=10)
    assert refusal(b"a,b\n1,2\n3,12345678\n", limits=limits) == ("csv_record_too_large", 3)
    assert refusal(b"a,b\n1,2\n3,4,5,6,7,8,9", limits=limits) == ("csv_record_too_large", 3)
    _, _, error = split(b"a,b\n1,2\n3,1234567\n", limits=limits)
    assert error is None


def test_a_header_over_the_record_limit_fails_the_file() -> None:
    """Nothing is kept without bound, the header neither."""
    assert refusal(b"a" * 50, limits=CsvLimits(max_record_bytes=10)) == ("csv_record_too_large", 1)


def test_a_file_over_its_limit_fails_after_the_chunks_within() -> None:
    """The chunks before the limit are the same, in whatever pieces the input arrives."""
    data, limits = b"a\n1\n2\n3\n4\n5\n6\n7\n", CsvLimits(max_bytes=10, chunk_records=3)
    assert refusal(data, limits=limits) == ("csv_file_too_large", None)
    chunks, _, _ = split(data, range(len(data)), limits=limits)
    assert [chunk.data for chunk in chunks] == [b"1\n2\n3\n"]
    _, _, error = split(data[:10], limits=limits)
    assert error is None


def test_more_records_than_allowed_fail_the_file_at_the_first_beyond() -> None:
    """The header and blank lines are not records."""
    limits = CsvLimits(max_records=3)
    assert refusal(b"a\n1\n\n2\n3\n4\n5\n", limits=limits) == ("csv_too_many_records", 6)
    assert refusal(b"a\n1\n2\n3\n4", limits=limits) == ("csv_too_many_records", 5)
    assert refusal(b"1\n2\n3\n4", HEADLESS, limits) == ("csv_too_many_records", 4)
    _, _, error = split(b"a\n1\n2\n3\n\n", limits=limits)
    assert error is None


def test_a_nul_byte_fails_the_file_with_its_line() -> None:
    """Text holds none: the file is binary, damaged or UTF-16 without a mark."""
    assert refusal(b"a\n1\n\x002\n") == ("csv_nul_byte", 3)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_byte_order_mark_of_a_wide_encoding_is_refused_by_name(encoding: str) -> None:
    """Only that of UTF-8 is stripped."""
    data = ("\ufeff" if encoding.endswith("be") else "").encode(encoding) + "a\n1\n".encode(encoding)
    assert refusal(data) == ("csv_unsupported_encoding", None)
    _, _, error = split(data)
    assert error is not None
    assert encoding[:6].upper() in error.message


def test_a_utf_8_mark_is_stripped() -> None:
    """It does not become part of the first column's name."""
    _, header, _ = split(b"\xef\xbb\xbfcard_number\n1\n")
    assert header == b"card_number\n"


def test_a_doubled_utf_8_mark_is_stripped() -> None:
    """Tools that add a mark to a file that has one make it."""
    _, header, _ = split(b"\xef\xbb\xbf\xef\xbb\xbfcard_number\n1\n")
    assert header == b"card_number\n"


@pytest.mark.parametrize("line", [b"sep=;\n", b"sep=;\r\n", b"SEP=;\n", b'"sep=;"\r\n', b"\xef\xbb\xbfsep=;\n"])
def test_excels_separator_line_sets_the_delimiter(line: bytes) -> None:
    """The line is not a record, but positions and line numbers include it."""
    data = line + b'a;b\n1;"2;3"\n4;5\n'
    chunks, header, error = split(data)
    assert error is None
    assert header == line.removeprefix(b"\xef\xbb\xbf") + b"a;b\n"
    assert [(chunk.data, chunk.end) for chunk in chunks] == [
        (b'1;"2;3"\n4;5\n', Position(byte=len(data), record=2, line=4))
    ]
    chunks, header, _ = split(data, settings=HEADLESS)
    assert header == line.removeprefix(b"\xef\xbb\xbf") + b"column_1;column_2\n"
    assert [chunk.records for chunk in chunks] == [3]


def test_a_fault_behind_the_separator_line_names_its_line() -> None:
    """Lines are counted from the separator line, which is line 1."""
    assert refusal(b'sep=;\na;b\n1;x"y\n') == ("csv_quote_in_unquoted_field", 3)
    assert refusal(b'sep=;\na;"b";"c\n') == ("csv_unterminated_quote", 2)


def test_a_separator_line_alone_is_a_file_without_any_record() -> None:
    """With or without a line end."""
    for data in (b"sep=;", b"sep=;\r\n", b"sep=;\n\n"):
        chunks, header, error = split(data)
        assert (header, error, [chunk.records for chunk in chunks]) == (b"", None, [0])


@pytest.mark.parametrize("line", [b"sep=\n", b"sep=;;\n", b"sep=\xc2\xa7\n", b'"sep"\n', b"\nsep=;\n", b"a=;\n"])
def test_what_is_no_separator_line_is_a_record(line: bytes) -> None:
    """Only the very first line, with one ASCII character, is one."""
    _, header, _ = split(line + b"1,2\n")
    assert header is not None
    assert header == line.lstrip(b"\n")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"a.csv".ljust(257, b"\0") + b"ustar\0", "a tar archive"),
        (b"1A;chunk-signature=ab\r\ncard_number\n", "aws-chunked framing"),
        (b"--x1\r\nContent-Disposition: form-data\r\n\r\ncard_number\n", "multipart/form-data"),
        (b"<!DOCTYPE html><html><body>Access denied</body></html>", "HTML"),
        (b"\n  <html>\n", "HTML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b"\xef\xbb\xbf<Error>", "XML"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"%PDF-1.7\n", "PDF"),
        (b'{"message": "expired"}', "JSON"),
        (b' [{"card_number": "1"}]', "JSON"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (b"PAR1\x15", "Parquet"),
    ],
)
def test_what_is_no_csv_is_refused_by_what_it_looks_like(data: bytes, name: str) -> None:
    """An error page must not become garbage rows."""
    assert refusal(data) == ("csv_not_a_csv", None)
    _, _, error = split(data)
    assert error is not None
    assert name in error.message


@pytest.mark.parametrize("data", [b"{card},b\n1,2\n", b"[card],b\n", b"a<b\n", b"Patient\n", b" \n"])
def test_odd_column_names_are_not_taken_for_another_format(data: bytes) -> None:
    """Sniffing needs more than one character."""
    _, _, error = split(data)
    assert error is None


@pytest.mark.parametrize("data", [b"", b"\n\n\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("settings", [CsvSettings(), HEADLESS])
def test_a_file_without_any_record_has_one_empty_chunk(data: bytes, settings: CsvSettings) -> None:
    """Chunk 0 exists even then; the header is known to be none."""
    chunks, header, error = split(data, settings=settings)
    assert error is None
    assert header == b""
    assert [chunk.records for chunk in chunks] == [0]


def test_a_header_alone_has_one_empty_chunk() -> None:
    """Header only: no record, and the header without its missing line end."""
    chunks, header, _ = split(b"a,b")
    assert header == b"a,b"
    assert [(chunk.data, chunk.records) for chunk in chunks] == [(b"", 0)]


def test_blank_lines_are_lines_but_no_records() -> None:
    """They stay in the chunk's bytes, so that positions are those of the file; before the header they are skipped."""
    chunks, header, _ = split(b"\n\r\na\n\n1\n\r\n2\n\n3\n\n\n")
    assert header == b"a\n"
    assert [(chunk.data, chunk.records) for chunk in chunks] == [(b"\n1\n\r\n2\n\n3\n", 3)]


def test_blank_lines_alone_do_not_make_a_last_chunk() -> None:
    """After the last record, no chunk without records follows."""
    chunks, _, _ = split(b"a\n1\n2\n3\n\n\n")
    assert len(chunks) == 1


def test_without_header_the_names_are_numbers_and_hold_nothing_of_the_first_record() -> None:
    """The made-up header is as wide as the first record and ends like it."""
    chunks, header, _ = split(b'\n4111111111111111,"a,b",\r\n1,2,3\n', settings=HEADLESS)
    assert header == b"column_1,column_2,column_3\r\n"
    assert chunks[0].records == 2


def test_no_error_holds_a_fields_content() -> None:
    """Errors name lines and limits."""
    secret = b"4111111111111111"
    for data in (b'a\n"' + secret, b'a\n1"' + secret, secret + b"\0", b"a\n" + secret + b"\r1", b"a,b\n" + secret * 9):
        _, _, error = split(data, limits=CsvLimits(max_field_bytes=30))
        assert error is not None
        assert secret.decode() not in str(error)


def test_every_later_call_raises_the_same_error() -> None:
    """Feeding on after a refusal refuses again."""
    splitter = Splitter(CsvSettings(), SMALL)
    with pytest.raises(CsvError):
        splitter.feed(b"a\n\0" + b"x" * 600)
    with pytest.raises(CsvError):
        splitter.finish()


def told(error: CsvError | None) -> tuple[str, str, int | None] | None:
    """Return what an error says."""
    return None if error is None else (error.code, error.message, error.line)


@settings(deadline=None)  # a busy machine is no failure
@given(files() | hostile_bytes(), cuts(), LIMITS, SETTINGS)
def test_any_cutting_gives_the_same_chunks_and_the_same_error(
    data: bytes, at: Sequence[int], limits: CsvLimits, settings: CsvSettings
) -> None:
    """The law of the splitter: only the bytes and the bounds matter."""
    inside = [cut for cut in at if cut < len(data)]
    whole, whole_header, error = split(data, (), settings, limits)
    chunks, cut_header, cut_error = split(data, inside, settings, limits)
    assert (chunks, told(cut_error)) == (whole, told(error))
    if error is None:
        assert cut_header == whole_header


@settings(deadline=None)  # a busy machine is no failure
@given(files() | hostile_bytes(), LIMITS, SETTINGS, st.data())
def test_any_restart_gives_the_same_chunks_and_the_same_error(
    data: bytes, limits: CsvLimits, settings: CsvSettings, draw: st.DataObject
) -> None:
    """A splitter that starts at the end of a chunk continues as if it had never stopped."""
    chunks, found, error = split(data, (), settings, limits)
    if not chunks:
        return
    last = chunks[draw.draw(st.integers(0, len(chunks) - 1))]
    splitter = Splitter(settings, limits, at=last.end, next_chunk=last.number + 1, header=found)
    rest: list[Chunk] = []
    again: CsvError | None = None
    try:
        rest += splitter.feed(data[last.end.byte :])
        rest += splitter.finish()
    except CsvError as raised:
        again = raised
    assert rest == chunks[last.number + 1 :]
    assert told(again) == told(error)
    assert splitter.header == found


@settings(deadline=None)  # a busy machine is no failure
@given(files(odd=False))
def test_chunks_are_the_file_less_header_and_trailing_blank_lines(data: bytes) -> None:
    """No byte is lost or doubled between chunks."""
    chunks, header, error = split(data)
    assert error is None
    joined = b"".join(chunk.data for chunk in chunks)
    assert header is not None
    names = header[len(separator_line(header)) :]
    rest = data[data.find(names, len(header) - len(names)) + len(names) :] if header else data
    assert rest.startswith(joined) or not header
    assert not rest[len(joined) :].strip(b"\r\n") or not header
    for before, after in pairwise(chunks):
        assert before.end == after.start


def test_a_large_piece_is_scanned_in_parts() -> None:
    """One feed of three megabytes gives the chunks of many small ones."""
    data = b"card_number,name\n" + b'4111111111111111,"x""\ny"\n' * 130_000
    limits = CsvLimits()
    whole, _, _ = split(data, (), limits=limits)
    cut, _, _ = split(data, range(0, len(data), 65_537), limits=limits)
    assert whole == cut
    assert sum(chunk.records for chunk in whole) == 130_000
