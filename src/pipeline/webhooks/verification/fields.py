"""Reading a header that is a list of named fields, such as ``t=1769121839,v1=74f1d275,v1=5c9bc3c4``."""

from __future__ import annotations

from typing import Final

from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.settings import FieldSettings

MOST_SIGNATURES: Final = 16
"""How many signatures one header may hold; more would only cost us time."""


class Fields:
    """Takes the header apart. Nothing is trimmed, and a field without ``=`` spoils the whole header."""

    def __init__(self, settings: FieldSettings, header: str) -> None:
        """Take the names of the fields and, for messages, that of the header."""
        self._signature = settings.signature.encode()
        self._timestamp = (settings.timestamp or "").encode()
        self._separator = settings.separator.encode()
        self._header = header

    def signatures(self, value: bytes) -> list[bytes]:
        """Return every signature of the header.

        Raises:
            SignatureRefused: There is none, there are too many, or the header is no list of fields.
        """
        found = self._values(value, self._signature)
        if not found:
            raise SignatureRefused(
                Reason.SIGNATURE_MISSING, f"The header {self._header} has no field {self._signature.decode()}"
            )
        if len(found) > MOST_SIGNATURES:
            raise SignatureRefused(
                Reason.SIGNATURE_MALFORMED, f"The header {self._header} holds more than {MOST_SIGNATURES} signatures"
            )
        return found

    def timestamp(self, value: bytes) -> bytes:
        """Return the timestamp as received.

        Raises:
            SignatureRefused: It stands there not at all, or more than once.
        """
        found = self._values(value, self._timestamp)
        name = self._timestamp.decode()
        if not found:
            raise SignatureRefused(Reason.TIMESTAMP_MISSING, f"The header {self._header} has no field {name}")
        if len(found) > 1:
            raise SignatureRefused(Reason.TIMESTAMP_REPEATED, f"The field {name} stands there {len(found)} times")
        return found[0]

    def _values(self, value: bytes, name: bytes) -> list[bytes]:
        pairs = [field.partition(b"=") for field in value.split(self._separator)]
        if not all(equals for _, equals, _ in pairs):
            raise SignatureRefused(Reason.SIGNATURE_MALFORMED, f"The header {self._header} is no list of fields")
        return [inner for field, _, inner in pairs if field == name]
