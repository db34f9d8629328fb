"""Hypothesis strategies of card files: sound, odd and hostile ones, with settings and limits to read them by."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from pipeline.jobs.csv_engine import CsvLimits, CsvSettings

HEADLESS: Final = CsvSettings(header=False, card_column="1", drop_columns=())
"""A format whose files have no header and nothing to drop."""

_BEGINNINGS: Final = [
    "",
    "\ufeff",
    "\n",
    "\ufeff\ufeff",
    "sep=,\n",
    "sep=;\r\n",
    '"sep=,"\n',
    "\ufeffSEP=,\r\n",
    "sep=\n",
]
_FIELDS: Final = st.sampled_from(
    ["", "1", "x", '""', '"q"', '"a,b"', '"l\nf"', '"cr\rlf\r\n"', '"do""ble"', '""""', "é", "4111111111111111", " s "]
)
_BREAKS: Final = st.sampled_from(["\n", "\r\n", "\n\n", "\r\n\n"])
_ODD: Final = st.sampled_from(['"', "\r", "\0", 'x"', '"x"y', "," * 30, "z" * 40, "\ufeff", "\x1a", ";", "sep=;"])
_HEAD: Final = "1,22\n" * 103
"""Longer than the beginning that is looked at before anything else happens."""

SETTINGS: Final = st.sampled_from(
    [CsvSettings(), HEADLESS, CsvSettings(delimiter=";"), CsvSettings(encoding="latin-1"), CsvSettings(card_column="1")]
)
LIMITS: Final = st.builds(
    CsvLimits,
    chunk_bytes=st.just(1024),
    chunk_records=st.integers(1, 4),
    max_field_bytes=st.sampled_from([12, 65_536]),
    max_record_bytes=st.sampled_from([24, 65_536]),
    max_records=st.sampled_from([5, 105, 1000]),
    max_bytes=st.sampled_from([60, 530, 100_000]),
)


@st.composite
def files(draw: st.DrawFn, *, odd: bool = True) -> bytes:
    """Make a file: mostly a sound CSV, sometimes with something odd in it."""
    beginning = draw(st.sampled_from(_BEGINNINGS))
    text = ""
    for _ in range(draw(st.integers(0, 12))):
        text += ",".join(draw(st.lists(_FIELDS, min_size=1, max_size=3)))
        if odd and draw(st.integers(0, 15)) == 0:
            text += draw(_ODD)
        text += draw(_BREAKS)
    text += draw(st.sampled_from(["", "1,2", '"last"', '"open']) if odd else st.sampled_from(["", "1,2"]))
    if not odd:
        beginning = beginning.replace(";", ",")
    return (beginning + (_HEAD if draw(st.booleans()) else "") + text).encode()


def hostile_bytes() -> st.SearchStrategy[bytes]:
    """Make bytes that nobody meant as a CSV, of the signs that mean something in one; and any others."""
    signs = [
        b'"',
        b",",
        b";",
        b"\n",
        b"\r",
        b"\0",
        b"1",
        b"x",
        b"\xef\xbb\xbf",
        b"\xff",
        b"sep=;\n",
        b"\xc3\xa9",
        b"=",
        b"'",
    ]
    return st.lists(st.sampled_from(signs), max_size=60).map(b"".join) | st.binary(max_size=600)


_PLANTED: Final = ["4111111111111111", "zqxvw", "98765", "Żółw", "Qrstuv", "100001", "7391"]
"""Values that no text of ours has."""


@st.composite
def hostile_files(draw: st.DrawFn) -> tuple[bytes, frozenset[str]]:
    """Make a file with planted values where names, values or anything else could be; and return the values."""
    quote = draw(st.sampled_from(["", '"', "'"]))
    value = st.sampled_from(_PLANTED).map(lambda planted: f"{quote}{planted}{quote}")
    field = value | st.sampled_from(
        ["", "card_number", "cvv", "pin", '"', "column_1", "__record", "status", " ", "\u200b"]
    )
    record = st.lists(field | st.tuples(field, value).map("".join), min_size=1, max_size=5)
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    text = draw(st.sampled_from(_BEGINNINGS))
    for fields in draw(st.lists(record, max_size=6)):
        text += delimiter.join(fields) + draw(_BREAKS | st.sampled_from(["", "\r", '"\n']))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "iso-8859-2", "utf-16"]))
    return text.encode(encoding, "replace"), frozenset(planted.casefold() for planted in _PLANTED)


def cuts() -> st.SearchStrategy[list[int]]:
    """Make places at which a stream is cut into pieces."""
    return st.lists(st.integers(0, 700))
