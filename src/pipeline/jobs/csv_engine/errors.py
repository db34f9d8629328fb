"""The errors that refuse a file. Each one fails the job, because reading the file again finds the same fault."""

from __future__ import annotations

from pipeline.errors import PermanentError


class CsvError(PermanentError):
    """The file cannot be read as the CSV that the integration's settings describe.

    Attributes:
        line: Physical line of the file (from 1) where the fault begins; None if it has no line.
    """

    def __init__(self, code: str, message: str, *, line: int | None = None) -> None:
        """Store the line for scripts; the message names it for people."""
        super().__init__(code, message)
        self.line = line


def nul_byte(line: int) -> CsvError:
    """Return the error for a NUL byte: no text in a supported encoding contains one."""
    return CsvError(
        "csv_nul_byte",
        f"Line {line} holds a NUL byte: the file is binary, damaged, or in UTF-16 without a byte order mark.",
        line=line,
    )


def lone_carriage_return(line: int) -> CsvError:
    """Return the error for a CR outside quotes without an LF after it."""
    return CsvError(
        "csv_lone_carriage_return",
        f"Line {line} holds a carriage return without a line feed outside quotes: end lines with LF or CR LF.",
        line=line,
    )


def quote_in_unquoted_field(line: int) -> CsvError:
    """Return the error for a quote inside an unquoted field: after it, no record end is certain."""
    return CsvError(
        "csv_quote_in_unquoted_field",
        f"Line {line} holds a quote inside an unquoted field: quote the whole field and double the quotes in it.",
        line=line,
    )


def unterminated_quote(line: int) -> CsvError:
    """Return the error for a quote that is still open at the end of the file."""
    return CsvError(
        "csv_unterminated_quote", f"The quote opened on line {line} is not closed before the file ends.", line=line
    )


def quote_over_limit(line: int, limit: int) -> CsvError:
    """Return the error for a quote that is still open when its record reaches ``max_record_bytes``."""
    return CsvError(
        "csv_unterminated_quote",
        f"The quote opened on line {line} is not closed within the {limit} bytes of a record (max_record_bytes).",
        line=line,
    )


def record_too_large(line: int, limit: int) -> CsvError:
    """Return the error for a record over ``max_record_bytes``."""
    return CsvError(
        "csv_record_too_large",
        f"The record on line {line} has more than {limit} bytes (max_record_bytes).",
        line=line,
    )


def field_too_large(line: int, limit: int) -> CsvError:
    """Return the error for a field over ``max_field_bytes``."""
    return CsvError(
        "csv_field_too_large",
        f"A field that begins on line {line} has more than {limit} bytes (max_field_bytes).",
        line=line,
    )


def too_many_records(line: int, limit: int) -> CsvError:
    """Return the error for a file over ``max_records``."""
    return CsvError(
        "csv_too_many_records",
        f"The file holds more than {limit} records (max_records); the first one over the limit is on line {line}.",
        line=line,
    )


def file_too_large(limit: int) -> CsvError:
    """Return the error for a file over ``max_bytes``."""
    return CsvError("csv_file_too_large", f"The file has more than {limit} bytes, decompressed (max_bytes).")


def not_a_csv(kind: str) -> CsvError:
    """Return the error for a file whose first bytes are those of another format."""
    return CsvError("csv_not_a_csv", f"The file is not a CSV file: it looks like {kind}.")


def unsupported_encoding(kind: str) -> CsvError:
    """Return the error for the byte order mark of an encoding whose commas and line ends are not single bytes."""
    return CsvError("csv_unsupported_encoding", f"The file begins with the byte order mark of {kind}: send UTF-8.")
