"""Columns of a file: names, the card number, what is dropped, what the result adds."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import PermanentError
from pipeline.jobs.csv_engine import CsvError, CsvSettings, Layout
from pipeline.jobs.csv_engine.layout import looks_secret


def layout(header: bytes, /, *own: str, **settings: Any) -> Layout:
    """Return the layout of a header."""
    return Layout.of(header, CsvSettings(**settings), result_columns=own)


def dropped(found: Layout) -> list[str]:
    """Return the names of the columns that nothing stores."""
    return [found.columns[index] for index in found.dropped]


def code(header: bytes, /, *own: str, **settings: Any) -> tuple[str, str]:
    """Return code and message of the refusal."""
    with pytest.raises(PermanentError) as caught:
        layout(header, *own, **settings)
    return caught.value.code, caught.value.message


def test_result_header_is_the_input_header_byte_for_byte_and_the_added_columns() -> None:
    """Quotes do not change, and the result has the line end of the header."""
    found = layout(b'"card_number",name, x \r\n', "reference")
    assert found.columns == ("card_number", "name", " x ")
    assert found.result_header == b'"card_number",name, x ,status,message,reference\r\n'
    assert found.line_end == b"\r\n"


def test_a_header_without_line_end_gets_one() -> None:
    """Otherwise the first result line would be glued to it."""
    assert layout(b"card_number").result_header == b"card_number,status,message\n"


def test_without_header_nothing_is_put_before_the_first_record() -> None:
    """The made-up names are for the processor."""
    found = layout(b"column_1,column_2\n", header=False, card_column="2", drop_columns=())
    assert found.result_header == b""
    assert found.columns == ("column_1", "column_2")
    assert found.card == 1


def test_a_file_without_any_record_has_an_empty_result() -> None:
    """No header came, so none goes out, and no card column is missed."""
    found = layout(b"", "reference")
    assert (found.columns, found.result_header) == ((), b"")


def test_names_are_unquoted_and_decoded() -> None:
    """A doubled quote becomes one quote, and the names are decoded with the file's encoding."""
    assert layout('"card_number";"n ""é"""\n'.encode("latin-1"), encoding="latin-1", delimiter=";").columns == (
        "card_number",
        'n "é"',
    )


@pytest.mark.parametrize(
    ("header", "columns"),
    [(b"card_number,a,b,a\n", "2 and 4"), (b'card_number,a,"a"\n', "2 and 3"), (b"a,b,a,b,a\n", "1, 3 and 5")],
)
def test_doubled_names_refuse_the_file(header: bytes, columns: str) -> None:
    """Otherwise the last column of the name would win without a word."""
    assert code(header) == ("csv_header_duplicate", f"Columns {columns} have the same name.")


@pytest.mark.parametrize("header", [b"card_number,,b\n", b"card_number, ,b\n", b'card_number,""\n'])
def test_empty_names_refuse_the_file(header: bytes) -> None:
    """The message says which column."""
    assert code(header) == ("csv_header_empty_name", "Column 2 has no name in the header.")


@pytest.mark.parametrize("header", [b'card_number,"a"b\n', b'card_number,"a" \n'])
def test_text_after_a_name_s_closing_quote_refuses_the_file(header: bytes) -> None:
    """In a record it fails only that record, but the header concerns the whole file."""
    assert code(header)[0] == "csv_header_invalid"


def test_a_header_in_another_encoding_refuses_the_file() -> None:
    """The message names the column and the encoding that was expected."""
    assert code("card_number,é\n".encode("latin-1")) == ("csv_header_invalid", "Column name 2 is not valid utf-8.")


def test_names_that_the_engine_uses_refuse_the_file() -> None:
    """A columnar processor could not distinguish them from the engine's columns."""
    assert code(b"card_number,__record\n")[0] == "csv_header_invalid"


def test_the_card_column_is_found_by_name_or_number() -> None:
    """If a column is named by a number, that name decides before the position."""
    assert layout(b"id,card_number\n").card == 1
    assert layout(b"id,pan\n", card_column="2").card == 1
    assert layout(b"2,pan\n", card_column="2").card == 0


@pytest.mark.parametrize("column", ["pan", "0", "3", "²"])
def test_a_missing_card_column_lists_what_is_there(column: str) -> None:
    """By number, length and kind: the settings can be put right, and a card of a file without header is not quoted."""
    found, message = code(b"id,number\n", card_column=column)
    assert found == "csv_card_column_missing"
    assert message == (
        f"The file has no column {column!r} (card_column). Set card_column to the name or number of the column with "
        "the card number, or header = false if the file has no header. The line read as header has 2 fields: "
        "1 (2 letters), 2 (6 letters)."
    )


def test_long_and_many_names_are_cut_in_messages() -> None:
    """A message is read by people, and sent to a partner."""
    _, message = code(b",".join(b"%c%s" % (65 + n % 26, b"x" * n) for n in range(90)) + b"\n")
    assert "and 60 more" in message
    assert len(message) < 1200


def test_a_first_line_with_a_card_number_is_no_header() -> None:
    """Otherwise the first card would become column names: it would be lost, returned, and shown in errors."""
    for header in (b"4111111111111111,Doe\n", b"4111 1111 1111 1111,Doe\n", b'1,"%B4111-1111-1111-1111^DOE"\n'):
        found, message = code(header, card_column="1")
        assert found == "csv_header_looks_like_data"
        assert "4111" not in message
        assert "Doe" not in message


def test_the_first_line_of_a_file_without_header_is_not_quoted() -> None:
    """The values may be short numbers, PINs or names."""
    found, message = code(b'41111111,123,Doe,"4.1E+15"\n')
    assert found == "csv_card_column_missing"
    assert message == (
        "The file has no column 'card_number' (card_column). Set card_column to the name or number of the column with "
        "the card number, or header = false if the file has no header. The line read as header has 4 fields: "
        "1 (8 digits), 2 (3 digits), 3 (3 letters), 4 (7 digits, letters and signs)."
    )


@pytest.mark.parametrize(
    ("header", "column", "kind"),
    [
        (b"41111111,123,Doe\n", 1, "8 digits"),
        (b"tok_x,123,Doe\n", 2, "3 digits"),
        (b"tok_x,a 12-34-56,Doe\n", 2, "10 digits, letters, signs and blanks"),
        ("tok_x,\u0661\u0662\u0663\u0664\n".encode(), 2, "4 digits"),
    ],
)
def test_a_first_line_with_a_value_is_no_header_where_only_a_number_names_the_card_column(
    header: bytes, column: int, kind: str
) -> None:
    """No expected name shows that it is a header; the first card would be lost, and echoed as names."""
    assert code(header, card_column="1") == (
        "csv_header_looks_like_data",
        (
            f"The header has a value instead of a name (column {column}: {kind}). Set header = false if the file has "
            "no header, or card_column to the name of the column with the card number."
        ),
    )


@pytest.mark.parametrize("name", ["Card_Number", " card_number", "card number", "'card_number'", "card_number\u200b"])
def test_a_name_that_nearly_fits_is_said_by_its_number(name: str) -> None:
    """Blanks and invisible characters are hard to find in a file."""
    _, message = code(f"id,{name}\n".encode())
    assert message.startswith(
        "The file has no column 'card_number' (card_column). Column 2 has that name except for case, blanks, signs or "
        'invisible characters: write it as in the file, or card_column = "2". '
    )


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_a_wrong_delimiter_is_said(sign: str, name: str) -> None:
    """The whole line is one column then."""
    _, message = code(f"card_number{sign}name\n".encode())
    assert (
        f"(card_column). Its fields seem to be separated by {name}: set delimiter. The line read as header has 1"
        in message
    )


def test_columns_may_be_dropped_by_number() -> None:
    """A file without header has no names; a name that is a number is a name first."""
    headless = b"column_1,column_2,column_3\n"
    assert dropped(layout(headless, header=False, card_column="1", drop_columns=("3", "column_2"))) == [
        "column_2",
        "column_3",
    ]
    assert dropped(layout(b"card_number,2,x\n", drop_columns=("2", "3"))) == ["2", "x"]


@pytest.mark.parametrize("name", ["CVV\u200b", "\u00a0c v v", "'cvv'", "\uff23\uff36\uff36"])
def test_a_configured_drop_is_found_behind_invisible_characters(name: str) -> None:
    """An extra blank in a column's name must not cause its values to be stored."""
    assert dropped(layout(f"card_number,{name}\n".encode(), drop_columns=("cvv",))) == [name]
    assert dropped(layout(f"card_number,{name}\n".encode())) == [name]


def test_names_of_signs_alone_are_not_alike() -> None:
    """They have no letters in common."""
    assert dropped(layout(b"card_number,#\n", drop_columns=("-",))) == []


@pytest.mark.parametrize("wanted", ["4", "column_4", "1024"])
def test_a_file_without_the_column_to_drop_is_refused(wanted: str) -> None:
    """The file has other columns than expected, so a PIN may be in an unexpected column."""
    headless = b"column_1,column_2,column_3\n"
    assert code(headless, header=False, card_column="1", drop_columns=(wanted,)) == (
        "csv_drop_column_missing",
        (
            f"The file has 3 columns, so it has no column {wanted} (drop_columns): a column may be missing, and data "
            "that must not be stored may be in another one."
        ),
    )


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"card_column": "1"}, ["write drop_columns = "]),
        ({}, ["write card_column as a number", "write drop_columns = "]),
        ({"drop_columns": ()}, ["write card_column as a number"]),
        ({"card_column": "column_1", "drop_columns": ("cvv",)}, ["write drop_columns as numbers"]),
        ({"card_column": "0", "drop_columns": ("1",)}, ["write card_column as a number"]),
    ],
)
def test_a_format_without_header_needs_numbers(settings: dict[str, Any], missing: list[str]) -> None:
    """Without names, only the settings can say which column has a CVV or PIN, or that none has."""
    with pytest.raises(ValidationError) as caught:
        CsvSettings(header=False, **settings)
    (error,) = caught.value.errors()
    for text in missing:
        assert text in error["msg"]
    assert error["msg"].count("write ") == len(missing)


def test_excels_separator_line_names_the_delimiter_and_is_echoed() -> None:
    """The program that wrote the file must be able to read the result."""
    found = layout(b"sep=;\r\nid;card_number;cvv\r\n")
    assert found.columns == ("id", "card_number", "cvv")
    assert found.author.delimiter == b";"
    assert found.result_header == b"sep=;\r\nid;card_number;status;message\r\n"
    headless = layout(b"sep=|\ncolumn_1|column_2\n", header=False, card_column="1", drop_columns=())
    assert (headless.columns, headless.result_header) == (("column_1", "column_2"), b"sep=|\n")


def test_an_error_behind_the_separator_line_is_on_the_second_line() -> None:
    """Scripts get the line as a field."""
    with pytest.raises(CsvError) as caught:
        layout(b"sep=;\ncard_number;\n")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    "name",
    [
        "cvv", "CVV2", "cvc", "CVC 2", "cid", "csc", "Security Code", "card_security_code", "card-verification-value",
        "pin", "PIN Block", "pin_block", "card_pin", "track", "Track1", "track_2", "track2_data", "magstripe", "swipe",
        "encrypted_pin_block", "Card CVV",
    ],
)  # fmt: skip
def test_columns_that_must_not_be_stored_are_recognised(name: str) -> None:
    """Verification values, PINs and track data, however written."""
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    ["card_number", "pincode_area", "tracking", "tracking_number", "track_name", "spin", "incident", "city", "pint"],
)
def test_other_columns_are_not_dropped_by_accident(name: str) -> None:
    """A whole name must match, not a part of it."""
    assert not looks_secret(name)


def test_dropped_columns_are_in_the_layout_but_not_in_the_result_header() -> None:
    """The processor sees them, and nothing else does."""
    found = layout(b"cvv,card_number,PIN,name,track1\n")
    assert dropped(found) == ["cvv", "PIN", "track1"]
    assert found.kept_runs == ((1, 1), (3, 3))
    assert found.result_header == b"card_number,name,status,message\n"


def test_configured_drops_replace_the_default_ones() -> None:
    """By name without regard to case; none drops none."""
    assert dropped(layout(b"cvv,card_number,Name\n", drop_columns=("NAME ",))) == ["Name"]
    assert dropped(layout(b"cvv,card_number\n", drop_columns=())) == []


def test_the_card_column_is_not_dropped_by_its_looks() -> None:
    """Only a configuration that says so drops it."""
    assert dropped(layout(b"pin,cvv\n", card_column="pin")) == ["cvv"]
    assert dropped(layout(b"pin,cvv\n", card_column="pin", drop_columns=("pin",))) == ["pin"]


@pytest.mark.parametrize("name", [b"status", b"message", b"reference"])
def test_a_result_column_that_collides_is_refused(name: bytes) -> None:
    """Two columns of one name are a trap for readers of the result."""
    found, message = code(b"card_number," + name + b"\n", "reference")
    assert found == "result_column_collision"
    assert name.decode() in message


def test_renaming_ends_a_collision() -> None:
    """Each result column can be renamed."""
    found = layout(
        b"card_number,status,message,reference\n",
        "reference",
        status_column="result",
        message_column="why",
        rename_result_columns={"reference": "their, reference"},
    )
    assert found.result_header == b'card_number,status,message,reference,result,why,"their, reference"\n'
    assert found.own == ("reference",)


def test_result_columns_may_not_collide_with_each_other() -> None:
    """A processor's own column may be called status only under another name."""
    assert code(b"card_number\n", "status")[0] == "result_column_collision"


def test_a_rename_of_nothing_is_refused() -> None:
    """A typo would otherwise go unnoticed."""
    found, message = code(b"card_number\n", "reference", rename_result_columns={"refrence": "x"})
    assert found == "result_column_unknown"
    assert "'refrence'" in message
    assert "'reference'" in message


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r", "\0", "é", "", ",,"])
def test_delimiters_that_cannot_work_are_refused_by_the_settings(delimiter: str) -> None:
    """A delimiter must be one ASCII character other than a quote or a line end."""
    with pytest.raises(ValidationError):
        CsvSettings(delimiter=delimiter)


def test_a_csv_error_carries_its_line() -> None:
    """Scripts get it as a field."""
    with pytest.raises(CsvError) as caught:
        layout(b"card_number,\n")
    assert caught.value.line == 1


def test_a_header_of_very_many_columns_is_refused() -> None:
    """A record that lacks fields is echoed at full width: 100,000 columns make a gigabyte of 20 kB."""
    names = ["card_number", *(f"c{number}" for number in range(1023))]
    assert len(layout(",".join(names).encode()).columns) == 1024
    names.append("one")
    assert code(",".join(names).encode()) == (
        "csv_too_many_columns",
        "The header names 1025 columns; at most 1024 are read.",
    )
