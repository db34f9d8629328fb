"""Card files as senders really write them: each through download, splitter, engine, outcome and callback."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from structlog.testing import capture_logs
from support.job_world import World
from support.paths import ROOT
from support.transfer_ground import SECRET, ground, whole

from pipeline.jobs.transfer.download import MAGIC

FILES: Final = ROOT / "tests" / "inputs" / "files" / "csv"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and what becomes of its job.

    Attributes:
        data: The file; empty where the folder of files has one of the case's name.
        coding: The Content-Encoding that the store answers with.
        csv: Settings of the file's format.
        limits: Limits of the file.
        announced: Its record_count.
        reason: Why the job failed; empty for one that is completed.
        message: What the partner reads then.
        cards: How many cards are ok and how many failed.
        result: The uploaded file.
    """

    data: bytes = b""
    coding: str = ""
    csv: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    announced: int = 1
    reason: str = ""
    message: str = ""
    cards: tuple[int, int] = (0, 0)
    result: bytes = b""


def completed(result: bytes, *cards: int, data: bytes = b"", coding: str = "", **csv: Any) -> Case:
    """A job that is completed, with so many cards that are ok, and so many that failed."""
    ok, failed = cards
    return Case(data=data, coding=coding, csv=csv, announced=ok + failed, cards=(ok, failed), result=result)


def refused(
    reason: str,
    message: str,
    *,
    data: bytes = b"",
    announced: int = 1,
    cards: tuple[int, int] = (0, 0),
    coding: str = "",
    limits: Mapping[str, Any] | None = None,
    **csv: Any,
) -> Case:
    """A job that fails, with the reason and the message of its callback."""
    return Case(
        data=data,
        coding=coding,
        csv=csv,
        limits=limits or {},
        announced=announced,
        reason=reason,
        message=message,
        cards=cards,
    )


SET: Final = (
    "Set card_column to the name or number of the column with the card number, or header = false if the file has no "
    "header."
)
ALIKE: Final = (
    "Column 1 has that name except for case, blanks, signs or invisible characters: write it as in the file, or "
    'card_column = "1".'
)


def missing(advice: str, fields: str) -> str:
    """The message of a file without the card column."""
    return f"The file has no column 'card_number' (card_column). {advice} The line read as header has {fields}."


def value(column: str) -> str:
    """The message of a header that is none."""
    return (
        f"The header has a value instead of a name ({column}). Set header = false if the file has no header, or "
        "card_column to the name of the column with the card number."
    )


def stray_quote(line: int) -> str:
    """The message of a quote that makes all record ends behind it uncertain."""
    return f"Line {line} holds a quote inside an unquoted field: quote the whole field and double the quotes in it."


HEADER: Final = b"card_number,name,status,message\n"
NOT_DIGITS: Final = b"failed,card number has characters other than digits\n"
ARABIC: Final = ("\u0664" + 15 * "\u0661").encode()
FULLWIDTH: Final = ("\uff14" + 15 * "\uff11").encode()
PLAIN: Final = b"card_number,name\n4111111111111111,Ann\n"

CASES: Final[dict[str, Case]] = {
    "plain": completed(HEADER + b"4111111111111111,Ann,ok,\n" + b"5555555555554444,Bo,ok,\n", 2, 0),
    "crlf": completed(
        b"card_number,name,status,message\r\n4111111111111111,Ann,ok,\r\n",
        1,
        0,
        data=b"card_number,name\r\n4111111111111111,Ann\r\n",
    ),
    "mixed-line-ends": completed(
        b"card_number,name,status,message\r\n4111111111111111,Ann,ok,\n5555555555554444,Bo,ok,\r\n",
        2,
        0,
        data=b"card_number,name\r\n4111111111111111,Ann\n5555555555554444,Bo\r\n",
    ),
    "no-final-nl": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0),
    "cr-only": refused(
        "csv_lone_carriage_return",
        ("Line 1 holds a carriage return without a line feed outside quotes: end lines with LF or CR LF."),
    ),
    "lfcr": refused(
        "csv_lone_carriage_return",
        ("Line 2 holds a carriage return without a line feed outside quotes: end lines with LF or CR LF."),
    ),
    "crcrlf": refused(
        "csv_lone_carriage_return",
        ("Line 1 holds a carriage return without a line feed outside quotes: end lines with LF or CR LF."),
    ),
    "blank-mid": completed(HEADER + b"4111111111111111,Ann,ok,\n" + b"5555555555554444,Bo,ok,\n", 2, 0),
    "blank-end": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0),
    "space-lines": completed(
        HEADER + b"4111111111111111,Ann,ok,\n" + b"   ,,failed,line 3: 1 field instead of 2\n", 1, 1
    ),
    "delims-end": completed(
        HEADER
        + b"4111111111111111,Ann,ok,\n"
        + b",,failed,card number is missing\n"
        + b",,failed,card number is missing\n",
        1,
        2,
    ),
    "empty": completed(b"", 0, 0),
    "one-nl": completed(b"", 0, 0),
    "only-crlf": completed(b"", 0, 0),
    "bom-only": completed(b"", 0, 0),
    "one-byte": refused("csv_card_column_missing", missing(SET, "1 field: 1 (1 letter)")),
    "only-header": completed(HEADER, 0, 0),
    "only-header-no-nl": completed(HEADER, 0, 0),
    "bom": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0),
    "bom-quoted": completed(b'"card_number","name",status,message\n' + b'"4111111111111111","Ann",ok,\n', 1, 0),
    "double-bom": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0),
    "concat": completed(
        HEADER + b"4111111111111111,Ann,ok,\n" + b"card_number,name," + NOT_DIGITS + b"5555555555554444,Bo,ok,\n", 2, 1
    ),
    "concat-bom": completed(
        HEADER
        + b"4111111111111111,Ann,ok,\n"
        + b"\xef\xbb\xbfcard_number,name,"
        + NOT_DIGITS
        + b"5555555555554444,Bo,ok,\n",
        2,
        1,
    ),
    "utf16": refused(
        "csv_unsupported_encoding", "The file begins with the byte order mark of UTF-16 (little endian): send UTF-8."
    ),
    "utf16-nobom": refused(
        "csv_nul_byte",
        ("Line 1 holds a NUL byte: the file is binary, damaged, or in UTF-16 without a byte order mark."),
    ),
    "utf32": refused(
        "csv_unsupported_encoding",
        "The file begins with the byte order mark of UTF-32 (little endian): send UTF-8.",
        data=b"\xff\xfe\x00\x00c\x00\x00\x00a\x00\x00\x00r\x00\x00\x00d\x00\x00\x00_\x00\x00\x00n\x00\x00\x00u\x00\x00\x00m\x00\x00\x00b\x00\x00\x00e\x00\x00\x00r\x00\x00\x00,\x00\x00\x00n\x00\x00\x00a\x00\x00\x00m\x00\x00\x00e\x00\x00\x00\n\x00\x00\x004\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x001\x00\x00\x00,\x00\x00\x00A\x00\x00\x00n\x00\x00\x00n\x00\x00\x00\n\x00\x00\x00",
    ),
    "latin1": completed(HEADER + b"4111111111111111,Zo\xeb,failed,line 2: not valid utf-8\n", 0, 1),
    "latin1-as-set": completed(
        HEADER + b"4111111111111111,Zo\xeb,ok,\n",
        1,
        0,
        data=b"card_number,name\n4111111111111111,Zo\xeb\n",
        encoding="latin-1",
    ),
    "mixed-enc": completed(
        HEADER + b"4111111111111111,Zo\xc3\xab,ok,\n" + b"5555555555554444,Zo\xeb,failed,line 3: not valid utf-8\n",
        1,
        1,
    ),
    "overlong": completed(HEADER + b"4111111111111111,\xc0\xaf,failed,line 2: not valid utf-8\n", 0, 1),
    "surrogate-utf8": completed(HEADER + b"4111111111111111,\xed\xa0\x80,failed,line 2: not valid utf-8\n", 0, 1),
    "nul": refused(
        "csv_nul_byte",
        ("Line 2 holds a NUL byte: the file is binary, damaged, or in UTF-16 without a byte order mark."),
    ),
    "nul-pad-end": refused(
        "csv_nul_byte",
        ("Line 3 holds a NUL byte: the file is binary, damaged, or in UTF-16 without a byte order mark."),
    ),
    "sub-eof": completed(
        b"card_number,name,status,message\r\n4111111111111111,Ann,ok,\r\n5555555555554444,Bo,ok,\r\n"
        b"\x1a,,failed,line 4: 1 field instead of 2\r\n",
        2,
        1,
    ),
    "nel": completed(HEADER + b"4111111111111111,A\xc2\x85B,ok,\n", 1, 0),
    "u2028": completed(HEADER + b"4111111111111111,A\xe2\x80\xa8B,ok,\n", 1, 0),
    "vt": completed(HEADER + b"4111111111111111,A\x0bB\x1cC,ok,\n", 1, 0),
    "multiline": completed(
        HEADER + b'4111111111111111,"Ann\n' + b'Lee",ok,\n' + b'5555555555554444,"B""o",ok,\n', 2, 0
    ),
    "header-newline": completed(
        b'"card_number","full\n' + b'name",status,message\n' + b"4111111111111111,Ann,ok,\n", 1, 0
    ),
    "smart-quotes": completed(HEADER + b"4111111111111111,\xe2\x80\x9cAnn\xe2\x80\x9d,ok,\n", 1, 0),
    "single-quotes": refused(
        "csv_card_column_missing", missing(ALIKE, "2 fields: 1 (13 letters and signs), 2 (6 letters and signs)")
    ),
    "backslash-quote": refused("csv_quote_in_unquoted_field", stray_quote(2)),
    "quote-in-field": refused("csv_quote_in_unquoted_field", stray_quote(2)),
    "quote-end-space": completed(
        HEADER + b'"4111111111111111" ,"Ann",failed,line 2: text after a closing quote\n', 0, 1
    ),
    "space-quote": refused("csv_quote_in_unquoted_field", stray_quote(2)),
    "unclosed": refused("csv_unterminated_quote", "The quote opened on line 2 is not closed before the file ends."),
    "semicolon": refused(
        "csv_card_column_missing",
        missing("Its fields seem to be separated by semicolons: set delimiter.", "1 field: 1 (16 letters and signs)"),
    ),
    "tab": refused(
        "csv_card_column_missing",
        missing("Its fields seem to be separated by tabs: set delimiter.", "1 field: 1 (16 letters, signs and blanks)"),
    ),
    "pipe": refused(
        "csv_card_column_missing",
        missing(
            "Its fields seem to be separated by vertical bars: set delimiter.", "1 field: 1 (16 letters and signs)"
        ),
        data=b"card_number|name\n4111111111111111|Ann\n",
    ),
    "semicolon-as-set": completed(
        b"card_number;name;status;message\n" + b"4111111111111111;Ann, Lee;ok;\n",
        1,
        0,
        data=b"card_number;name\n4111111111111111;Ann, Lee\n",
        delimiter=";",
    ),
    "sep-first": completed(b"sep=;\n" + b"card_number;name;status;message\n" + b"4111111111111111;Ann;ok;\n", 1, 0),
    "sep-first-comma": completed(
        b"sep=,\n" + b"card_number,name,status,message\n" + b"4111111111111111,Ann,ok,\n", 1, 0
    ),
    "sep-crlf": completed(
        b"sep=;\r\ncard_number;name;status;message\r\n4111111111111111;Ann;ok;\r\n",
        1,
        0,
        data=b"sep=;\r\ncard_number;name\r\n4111111111111111;Ann\r\n",
    ),
    "sep-bom": completed(
        b"sep=;\n" + b"card_number;name;status;message\n" + b"4111111111111111;Ann;ok;\n",
        1,
        0,
        data=b"\xef\xbb\xbfsep=;\ncard_number;name\n4111111111111111;Ann\n",
    ),
    "sep-quoted": completed(
        b'"sep=;"\n' + b"card_number;name;status;message\n" + b"4111111111111111;Ann;ok;\n",
        1,
        0,
        data=b'"sep=;"\ncard_number;name\n4111111111111111;Ann\n',
    ),
    "sep-capitals": completed(
        b"SEP=;\n" + b"card_number;name;status;message\n" + b"4111111111111111;Ann;ok;\n",
        1,
        0,
        data=b"SEP=;\ncard_number;name\n4111111111111111;Ann\n",
    ),
    "sep-tab": completed(
        b"sep=\t\n" + b"card_number\tname\tstatus\tmessage\n" + b"4111111111111111\tAnn\tok\t\n",
        1,
        0,
        data=b"sep=\t\ncard_number\tname\n4111111111111111\tAnn\n",
    ),
    "sep-over-setting": completed(
        b"sep=,\n" + b"card_number,name,status,message\n" + b"4111111111111111,Ann; Lee,ok,\n",
        1,
        0,
        data=b"sep=,\ncard_number,name\n4111111111111111,Ann; Lee\n",
        delimiter=";",
    ),
    "sep-no-header": completed(
        b"sep=;\n" + b"4111111111111111;Ann;ok;\n",
        1,
        0,
        data=b"sep=;\n4111111111111111;1234;Ann\n",
        drop_columns=("2",),
        header=False,
        card_column="1",
    ),
    "sep-wrong": refused(
        "csv_card_column_missing",
        missing(
            "Its fields seem to be separated by commas: correct its sep= line.", "1 field: 1 (16 letters and signs)"
        ),
        data=b"sep=;\ncard_number,name\n4111111111111111,Ann\n",
    ),
    "sep-alone": completed(b"", 0, 0, data=b"sep=;\r\n"),
    "sep-two-signs": refused(
        "csv_card_column_missing",
        missing("Its fields seem to be separated by semicolons: set delimiter.", "1 field: 1 (6 letters and signs)"),
        data=b"sep=;;\ncard_number;name\n4111111111111111;Ann\n",
    ),
    "sep-second": completed(
        b"card_number;name;status;message\n"
        b"sep=;;failed;card number has characters other than digits\n"
        b"4111111111111111;Ann;ok;\n",
        1,
        1,
        data=b"card_number;name\nsep=;\n4111111111111111;Ann\n",
        delimiter=";",
    ),
    "sep-fault": refused(
        "csv_quote_in_unquoted_field", stray_quote(3), data=b'sep=;\ncard_number;name\n4111111111111111;An"n\n'
    ),
    "case-header": refused(
        "csv_card_column_missing", missing(ALIKE, "2 fields: 1 (11 letters and signs), 2 (4 letters)")
    ),
    "human-header": refused(
        "csv_card_column_missing", missing(ALIKE, "2 fields: 1 (11 letters and blanks), 2 (4 letters)")
    ),
    "space-header": refused(
        "csv_card_column_missing",
        missing(ALIKE, "2 fields: 1 (13 letters, signs and blanks), 2 (5 letters and blanks)"),
    ),
    "nbsp-header": refused(
        "csv_card_column_missing",
        missing(ALIKE, "2 fields: 1 (12 letters, signs and invisible characters), 2 (4 letters)"),
    ),
    "zwsp-header": refused(
        "csv_card_column_missing",
        missing(ALIKE, "2 fields: 1 (12 letters, signs and invisible characters), 2 (4 letters)"),
    ),
    "ole-comma-in-header": refused(
        "csv_card_column_missing", missing(ALIKE, "2 fields: 1 (11 letters and signs), 2 (4 letters)")
    ),
    "dup-header": refused("csv_header_duplicate", "Columns 2 and 3 have the same name."),
    "row-names": refused("csv_header_empty_name", "Column 1 has no name in the header."),
    "comma-end": refused("csv_header_empty_name", "Column 3 has no name in the header."),
    "comma-end-data-only": completed(HEADER + b"4111111111111111,Ann,failed,line 2: 3 fields instead of 2\n", 0, 1),
    "status-col": refused(
        "result_column_collision",
        (
            "The input already has columns named 'status': rename the result columns with status_column, "
            "message_column or rename_result_columns."
        ),
    ),
    "wide": refused("csv_too_many_columns", "The header names 1501 columns; at most 1024 are read."),
    "reserved-header": refused(
        "csv_header_invalid",
        "Column 2 has the reserved name __record.",
        data=b"card_number,__record\n4111111111111111,Ann\n",
    ),
    "latin1-header": refused(
        "csv_header_invalid", "Column name 2 is not valid utf-8.", data=b"card_number,Zo\xeb\n4111111111111111,Ann\n"
    ),
    "comment": refused("csv_card_column_missing", missing(SET, "1 field: 1 (10 letters, signs and blanks)")),
    "preamble": refused("csv_card_column_missing", missing(SET, "1 field: 1 (15 letters and blanks)")),
    "footer": completed(HEADER + b"4111111111111111,Ann,ok,\n" + b"Total,1," + NOT_DIGITS, 1, 1),
    "trailer-rec": completed(
        HEADER + b"4111111111111111,Ann,ok,\n" + b"(1 rows affected),,failed,line 3: 1 field instead of 2\n", 1, 1
    ),
    "headless": refused(
        "csv_header_looks_like_data",
        value("column 1: 16 digits"),
        data=b"4111111111111111,123,Ann\n5555555555554444,456,Bo\n",
    ),
    "headless-grouped": refused(
        "csv_header_looks_like_data", value("column 1: 19 digits and signs"), data=b"4111.1111.1111.1111,123,Ann\n"
    ),
    "headless-short": refused(
        "csv_card_column_missing",
        missing(SET, "3 fields: 1 (6 digits), 2 (4 digits), 3 (3 letters)"),
        data=b"100001,1234,Ann\n100002,5678,Bo\n",
    ),
    "headless-scientific": refused(
        "csv_card_column_missing",
        missing(SET, "3 fields: 1 (11 digits, letters and signs), 2 (4 digits), 3 (3 letters)"),
        data=b"4.11111E+15,1234,Ann\n",
    ),
    "headless-tokens": refused(
        "csv_card_column_missing",
        missing(SET, "3 fields: 1 (7 letters), 2 (4 digits), 3 (3 letters)"),
        data=b"tokAbCd,1234,Ann\ntokEfGh,5678,Bo\n",
    ),
    "headless-doubled": refused(
        "csv_header_duplicate", "Columns 2 and 3 have the same name.", data=b"tokAbCd,Ann,Ann\n"
    ),
    "headless-empty-value": refused(
        "csv_header_looks_like_data", value("column 1: 16 digits"), data=b"4111111111111111,,Ann\n"
    ),
    "headless-one-column": refused(
        "csv_card_column_missing", missing(SET, "1 field: 1 (6 digits)"), data=b"100001\n100002\n"
    ),
    "headless-by-number": refused(
        "csv_header_looks_like_data", value("column 1: 6 digits"), data=b"100001,Ann\n100002,Bo\n", card_column="1"
    ),
    "headless-pin-by-number": refused(
        "csv_header_looks_like_data", value("column 2: 4 digits"), data=b"tokAbCd,1234\ntokEfGh,5678\n", card_column="1"
    ),
    "headless-without-digits": refused(
        "record_count_mismatch",
        (
            "The file holds 1 records, but record_count announces 2. Announce the number of data records, "
            "not counting the header."
        ),
        cards=(0, 1),
        announced=2,
        data=b"tokAbCd,Ann\ntokEfGh,Bo\n",
        card_column="1",
    ),
    "headless-as-set": completed(
        b"4111111111111111,Ann,ok,\n" + b"5555555555554444,Bo,ok,\n",
        2,
        0,
        data=b"4111111111111111,1234,Ann\n5555555555554444,5678,Bo\n",
        drop_columns=("2",),
        header=False,
        card_column="1",
    ),
    "headless-drop-missing": refused(
        "csv_drop_column_missing",
        (
            "The file has 3 columns, so it has no column 4 (drop_columns): a column may be missing, and data "
            "that must not be stored may be in another one."
        ),
        data=b"4111111111111111,1234,Ann\n",
        drop_columns=("4",),
        header=False,
        card_column="1",
    ),
    "headless-card-missing": refused(
        "csv_card_column_missing",
        "The file has no column '4' (card_column). Its first record has 3 fields.",
        data=b"4111111111111111,1234,Ann\n",
        header=False,
        card_column="4",
        drop_columns=(),
    ),
    "headless-narrow-record": completed(
        b"4111111111111111,Ann,ok,\n" + b",,failed,line 2: 2 fields instead of 3\n",
        1,
        1,
        data=b"4111111111111111,1234,Ann\n5555555555554444,Bo\n",
        drop_columns=("2",),
        header=False,
        card_column="1",
    ),
    "card-cvv": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0),
    "cvv-invisible": completed(
        HEADER + b"4111111111111111,Ann,ok,\n",
        1,
        0,
        data=b"card_number,C\xe2\x80\x8bVV,name\n4111111111111111,987,Ann\n",
    ),
    "cvv-fullwidth": completed(
        HEADER + b"4111111111111111,Ann,ok,\n",
        1,
        0,
        data=b"card_number,\xef\xbc\xa3\xef\xbc\xb6\xef\xbc\xb6,name\n4111111111111111,987,Ann\n",
    ),
    "pin-and-track": completed(
        b"card_number,status,message\n" + b"4111111111111111,ok,\n",
        1,
        0,
        data=b"card_number,PIN Block,Track-2\n4111111111111111,A1B2C3,;4111=99\n",
    ),
    "drop-by-number": completed(
        HEADER + b"4111111111111111,Ann,ok,\n",
        1,
        0,
        data=b"card_number,secret,name\n4111111111111111,987,Ann\n",
        drop_columns=("2",),
    ),
    "drop-by-name": completed(
        HEADER + b"4111111111111111,Ann,ok,\n",
        1,
        0,
        data=b"card_number,SECRET\xc2\xa0,name\n4111111111111111,987,Ann\n",
        drop_columns=("secret",),
    ),
    "drop-none": completed(
        b"card_number,CVV,status,message\n" + b"4111111111111111,987,ok,\n",
        1,
        0,
        data=b"card_number,CVV\n4111111111111111,987\n",
        drop_columns=(),
    ),
    "cvv-narrow-record": completed(
        HEADER + b",,failed,line 2: 2 fields instead of 3\n", 0, 1, data=b"card_number,CVV,name\n4111111111111111,987\n"
    ),
    "arabic-digits": completed(HEADER + ARABIC + b",Ann," + NOT_DIGITS, 0, 1),
    "fullwidth": completed(HEADER + FULLWIDTH + b",Ann," + NOT_DIGITS, 0, 1),
    "zw-number": completed(
        HEADER + b"\xe2\x80\x8b4111111111111111,Ann," + NOT_DIGITS + b"\xc2\xa05555555555554444,Bo," + NOT_DIGITS, 0, 2
    ),
    "tab-number": completed(
        HEADER + b"\t4111111111111111,Ann," + NOT_DIGITS + b" 5555555555554444 ,Bo," + NOT_DIGITS, 0, 2
    ),
    "spaces": refused("csv_quote_in_unquoted_field", stray_quote(5)),
    "grouped": completed(
        HEADER + b"4111 1111 1111 1111,Ann," + NOT_DIGITS + b"5555-5555-5555-4444,Bo," + NOT_DIGITS,
        0,
        2,
        data=b"card_number,name\n4111 1111 1111 1111,Ann\n5555-5555-5555-4444,Bo\n",
    ),
    "eq-quoted": completed(HEADER + b'"=""4111111111111111""",Di,' + NOT_DIGITS, 0, 1),
    "sci": completed(
        HEADER + b"4.11111E+15,Ann," + NOT_DIGITS + b"5.55556E+15,Bo," + NOT_DIGITS + b"4111111111111111,Cy,ok,\n", 1, 2
    ),
    "check-digit": completed(
        HEADER + b"4111111111111112,Ann,failed,card number fails its check digit (Luhn)\n",
        0,
        1,
        data=b"card_number,name\n4111111111111112,Ann\n",
    ),
    "formula": completed(
        HEADER + b"4111111111111111,=cmd|'/C calc'!A0,ok,\n" + b"5555555555554444,@SUM(1),ok,\n", 2, 0
    ),
    "field-too-long": refused(
        "csv_field_too_large",
        "A field that begins on line 2 has more than 20 bytes (max_field_bytes).",
        data=b"card_number,name\n4111111111111111,Annabella-Maria-Theresia\n",
        limits={"max_field_bytes": 20},
    ),
    "record-too-long": refused(
        "csv_record_too_large",
        "The record on line 2 has more than 30 bytes (max_record_bytes).",
        data=b"card_number,name\n4111111111111111,Annabella-Maria-Theresia\n",
        limits={"max_record_bytes": 30},
    ),
    "too-many-records": refused(
        "csv_too_many_records",
        "The file holds more than 1 records (max_records); the first one over the limit is on line 3.",
        announced=2,
        data=b"card_number,name\n4111111111111111,Ann\n5555555555554444,Bo\n",
        limits={"max_records": 1},
    ),
    "too-large": refused(
        "csv_file_too_large",
        "The file has more than 30 bytes, decompressed (max_bytes).",
        data=PLAIN,
        limits={"max_bytes": 30},
    ),
    "more-than-announced": refused(
        "record_count_mismatch",
        (
            "The file holds more records than announced: record_count is 1, and record 2 exists. Announce "
            "the number of data records, not counting the header."
        ),
        data=b"card_number,name\n4111111111111111,Ann\n5555555555554444,Bo\n",
    ),
    "fewer-than-announced": refused(
        "record_count_mismatch",
        (
            "The file holds 1 records, but record_count announces 2. Announce the number of data records, "
            "not counting the header."
        ),
        cards=(1, 0),
        announced=2,
        data=PLAIN,
    ),
    "empty-though-announced": refused(
        "file_empty", "The file holds no data record, but record_count announces 1.", data=b"card_number,name\n"
    ),
    "html": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like an HTML page.",
        data=b"<!DOCTYPE html><html><body>Denied for Ann</body></html>",
    ),
    "html-ws": refused("csv_not_a_csv", "The file is not a CSV file: it looks like an HTML page."),
    "xml-bom": refused(
        "csv_not_a_csv", "The file is not a CSV file: it looks like XML, e.g. an error answer of an object store."
    ),
    "s3-error": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like XML, e.g. an error answer of an object store.",
        data=b'<?xml version="1.0"?><Error><Code>Denied</Code><Key>Ann</Key></Error>',
    ),
    "json-lines": refused("csv_not_a_csv", "The file is not a CSV file: it looks like JSON."),
    "json-array": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like JSON.",
        data=b'[{"card_number": "4111111111111111"}]',
    ),
    "xlsx": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like a ZIP archive, e.g. an Excel workbook.",
        data=b"PK\x03\x04\x14\x00\x06\x00Ann",
    ),
    "xls": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like an old Excel or Word document.",
        data=b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1Ann",
    ),
    "pdf": refused("csv_not_a_csv", "The file is not a CSV file: it looks like a PDF.", data=b"%PDF-1.7\nAnn"),
    "rtf": refused(
        "csv_not_a_csv", "The file is not a CSV file: it looks like an RTF document.", data=b"{\\rtf1\\ansi Ann}"
    ),
    "pgp": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like a PGP message.",
        data=b"-----BEGIN PGP MESSAGE-----\nhQEMA4111\n",
    ),
    "zstd": refused(
        "csv_not_a_csv", "The file is not a CSV file: it looks like Zstandard data.", data=b"(\xb5/\xfd\x04\x00Ann"
    ),
    "parquet": refused(
        "csv_not_a_csv", "The file is not a CSV file: it looks like a Parquet file.", data=b"PAR1\x15\x04Ann"
    ),
    "tar": refused("csv_not_a_csv", "The file is not a CSV file: it looks like a tar archive."),
    "form-upload": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like an HTML form's upload (multipart/form-data).",
        data=b'--x7d\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + PLAIN + b"--x7d--\r\n",
    ),
    "aws-chunked-body": refused(
        "csv_not_a_csv",
        "The file is not a CSV file: it looks like an upload in aws-chunked framing.",
        data=b"26;chunk-signature=ad80c730a21e5b8d\r\ncard_number,name\n4111111111111111,Ann\n\r\n0;chunk-signature=b6c6\r\n\r\n",
    ),
    "gz-multi": completed(HEADER + b"4111111111111111,Ann,ok,\n" + b"5555555555554444,Bo,ok,\n", 2, 0),
    "gz-empty-member": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0),
    "gz-empty": completed(b"", 0, 0),
    "gz-double": refused(
        "csv_not_a_csv",
        (
            "The file is not a CSV file: it looks like gzip data inside the download (compressed twice, or "
            "without a Content-Encoding)."
        ),
    ),
    "gz-tar": refused("csv_not_a_csv", "The file is not a CSV file: it looks like a tar archive."),
    "gz-trunc": refused(
        "source_gzip_truncated", "The file behind input_file_url is gzip and ends too early. Upload it again."
    ),
    "gz-badcrc": refused(
        "source_gzip_broken", "The file behind input_file_url is a damaged gzip file. Upload it again."
    ),
    "encoding-utf-8": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0, data=PLAIN, coding="utf-8"),
    "encoding-none": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0, data=PLAIN, coding="none"),
    "encoding-gzip-on-plain": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0, data=PLAIN, coding="gzip"),
    "encoding-br-on-plain": completed(HEADER + b"4111111111111111,Ann,ok,\n", 1, 0, data=PLAIN, coding="br"),
    "encoding-br": refused(
        "source_encoding_unknown",
        (
            "The file behind input_file_url is not plain text, and its Content-Encoding is br. Only gzip is "
            "supported: upload it plain or as gzip."
        ),
        data=b"\x8b\x12\x80card_number,name\n4111111111111111,Ann\n\x03",
        coding="br",
    ),
    "encoding-utf-8-on-gzip": completed(
        HEADER + b"4111111111111111,Ann,ok,\n", 1, 0, data=gzip.compress(PLAIN, mtime=0), coding="utf-8"
    ),
    "encoding-gzip-on-damaged": refused(
        "source_gzip_broken",
        (
            "The file behind input_file_url has the Content-Encoding gzip, but is neither gzip nor plain "
            "text. Upload it again."
        ),
        data=b"\x1f\x00\x08\x00Ann",
        coding="gzip",
    ),
}


def data_of(name: str) -> bytes:
    """The bytes of a case's file."""
    found = [path for ending in ("csv", "csv.gz") if (path := FILES / f"{name.replace('-', '_')}.{ending}").exists()]
    return found[0].read_bytes() if found else CASES[name].data


@dataclass
class Answer:
    """What became of a job, and every text that its file could have reached on the way, except the result itself."""

    reason: str
    message: str
    cards: tuple[int, int]
    result: bytes
    texts: list[str]


async def answer_of(name: str) -> Answer:
    """Let a job with the case's file go its whole way, and gather what was said."""
    case = CASES[name]
    headers = {"Content_Encoding": case.coding} if case.coding else {}
    world = World(csv=case.csv, csv_limits=case.limits)
    with capture_logs() as lines:
        async with ground(whole(data_of(name), **headers), clock=world.clock) as store:
            world.downloader = store.transfers.downloader
            world.restart()
            url = f"{store.server.url}/in.csv?X-Amz-Signature={SECRET}"
            await world.run(world.announce(input_file_url=url, record_count=case.announced))
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert [json.loads(body)["error_message"] for _, _, body, _ in world.ecs.calls] == [outcome.message]
    texts = [repr(line) for line in lines]
    texts += [repr((one.key, one.value, one.headers)) for one in world.bus.published]
    texts += [repr(body) for _, _, body, _ in world.ecs.calls]
    texts += [repr(data) for key, data in world.memory.objects.items() if "/parts/" not in key]
    return Answer(
        outcome.reason or "",
        outcome.message or "",
        (outcome.ok, outcome.failed),
        b"".join(data for _, data in world.objects.put),
        texts,
    )


SAID: Final = frozenset(
    {"2026", "PDF", "PGP", "body", "card", "csv", "data", "form", "name", "number", "record", "sep", "status"}
)
"""Words of the files that our own texts have too: of settings, formats and remedies, and the year."""


def inflated(data: bytes) -> bytes:
    """The content of a file, as far as it can be had."""
    content = b""
    while data.startswith(MAGIC):
        member = zlib.decompressobj(31)
        try:
            for at in range(len(data)):
                content += member.decompress(data[at : at + 1])
        except zlib.error:
            break
        data = member.unused_data
    return inflated(content) if content.startswith(MAGIC) else content or data


def words_of(data: bytes) -> set[str]:
    """The words and numbers of a file that nobody may read anywhere but in the result."""
    texts = [inflated(data).decode(encoding, "ignore") for encoding in ("utf-8", "latin-1", "utf-16")]
    return {word for text in texts for word in re.findall(r"[^\W_]{3,}", text)} - SAID


@pytest.mark.parametrize("name", CASES)
async def test_a_file_gets_its_promised_answer_and_no_text_repeats_what_is_in_it(name: str) -> None:
    case = CASES[name]
    answer = await answer_of(name)
    assert (answer.reason, answer.message) == (case.reason, case.message)
    assert answer.cards == case.cards
    assert answer.result == case.result
    said = set(re.findall(r"[^\W_]+", " ".join(answer.texts)))
    assert said & words_of(data_of(name)) == set()


def test_each_file_of_the_folder_is_a_case() -> None:
    names = {path.name.partition(".")[0].replace("_", "-") for path in FILES.iterdir()}
    assert names <= set(CASES)
    assert [name for name in names if CASES[name].data] == []
