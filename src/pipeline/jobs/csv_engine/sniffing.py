"""What a file is by its first bytes, when it is not a CSV."""

from __future__ import annotations

import re
from typing import Final

from pipeline.jobs.csv_engine import errors

SNIFF_BYTES: Final = 512
"""How much of the beginning decides. Fixed, so that the cutting of the input does not matter."""

BOM: Final = b"\xef\xbb\xbf"

_ENCODINGS: Final = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (b"\xff\xfe\x00\x00", "UTF-32 (little endian)"),
    (b"\x00\x00\xfe\xff", "UTF-32 (big endian)"),
    (b"\xff\xfe", "UTF-16 (little endian)"),
    (b"\xfe\xff", "UTF-16 (big endian)"),
)

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip data inside the download (compressed twice, or compressed without saying so)"),
    (b"PK\x03\x04", "a ZIP archive, e.g. an Excel workbook"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"%PDF-", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word document"),
    (b"BZh", "bzip2 data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a PNG image"),
    (b"-----BEGIN PGP", "a PGP message"),
)

_MARKUP: Final = (
    (re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*<[?!a-z]", re.IGNORECASE), "XML, e.g. an error answer of an object store"),
    (re.compile(rb"""\s*(?:\{\s*["}]|\[\s*[\[{"\]])"""), "JSON"),
)


def sniff(head: bytes) -> None:
    """Refuse what cannot be a CSV, by its first :data:`SNIFF_BYTES` bytes.

    Raises:
        CsvError: ``csv_unsupported_encoding`` or ``csv_not_a_csv``, naming what the file looks like.
    """
    for mark, name in _ENCODINGS:
        if head.startswith(mark):
            raise errors.unsupported_encoding(name)
    for magic, name in _MAGIC:
        if head.startswith(magic):
            raise errors.not_a_csv(name)
    text = head.removeprefix(BOM)
    for pattern, name in _MARKUP:
        if pattern.match(text):
            raise errors.not_a_csv(name)
