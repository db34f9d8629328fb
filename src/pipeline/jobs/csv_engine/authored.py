"""How the fields look that the result adds. Input fields are echoed as they stand and never come here."""

from __future__ import annotations

from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet read a cell as a formula (OWASP: CSV injection)."""

MESSAGE_LETTERS: Final = 1000
"""A longer message is cut: it is for a person, and bounds the result's memory."""


class Author:
    """Writes one field of text that we, or a processor, made.

    Quoted when it holds a delimiter, a quote or a line end; guarded with a leading ``'`` when a spreadsheet would take
    it for a formula. Letters that the file's encoding lacks become ``?``, NUL bytes are left out.
    """

    def __init__(self, delimiter: str, encoding: str) -> None:
        self.delimiter: Final = delimiter.encode()
        self.encoding: Final = encoding
        self._special = frozenset(f'{delimiter}"\r\n')

    def field(self, text: str) -> bytes:
        """Return the field's bytes."""
        text = text.replace("\0", "")
        if text.startswith(_FORMULA):
            text = "'" + text
        if not self._special.isdisjoint(text):
            text = '"' + text.replace('"', '""') + '"'
        return text.encode(self.encoding, "replace")

    def message(self, text: str) -> bytes:
        """Return a message's bytes, cut to :data:`MESSAGE_LETTERS`."""
        return self.field(text if len(text) <= MESSAGE_LETTERS else text[: MESSAGE_LETTERS - 1] + "…")
