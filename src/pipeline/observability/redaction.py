"""The last processor before a log line is rendered: whatever it holds comes out masked and as plain JSON values."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Final

from pydantic import SecretStr

from pipeline.observability.masking import DIGITS_MASK, MASK, is_secret_name, looks_like_card, mask_text

_SHORTEST_SECRET: Final = 6
"""A configured secret shorter than this is not searched for: it would blank out innocent text."""
_SECRETS: Final = 256
_MAX_TEXT: Final = 16_384
_MAX_DEPTH: Final = 6
_NUMBER_NAMES: Final = ("_ms", "_us", "_ns", "offset", "bytes", "size")


class Redaction:
    """Masks log events: by field name, by pattern (see ``masking``) and by the secrets that this process knows.

    It walks nested mappings and sequences down to six levels; whatever is no JSON value becomes masked text, so that
    the renderer never calls ``repr`` on something that was not looked at.
    """

    def __init__(self, secrets: Iterable[SecretStr] = ()) -> None:
        self._secrets: deque[str] = deque(maxlen=_SECRETS)
        for secret in secrets:
            self.add(secret)

    def add(self, secret: SecretStr) -> None:
        """Mask this value from now on; the newest 256 are remembered, since tokens rotate."""
        value = secret.get_secret_value()
        if len(value) >= _SHORTEST_SECRET and value not in self._secrets:
            self._secrets.append(value)

    def text(self, text: str) -> str:
        """Return the text without secrets, masked, at most 16,384 characters of it; none of them steers a terminal.

        Keys and subjects of events may hold what their sender likes; only line ends and tabs stay, for tracebacks.
        """
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        masked = mask_text(text)
        cut = masked if len(masked) <= _MAX_TEXT else f"{masked[:_MAX_TEXT]}…"
        return cut if cut.isprintable() else "".join(map(_escaped, cut))

    def value(self, value: object, *, name: str = "", depth: int = 0) -> Any:
        """Return a JSON value that may be shown, for a field of the given name."""
        if value is None or isinstance(value, bool):
            return value
        if is_secret_name(name):
            return MASK
        if isinstance(value, int | float):
            return self._number(value, name)
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            return {
                self.text(str(key)): self.value(item, name=str(key), depth=depth + 1) for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset | deque) and depth < _MAX_DEPTH:
            return [self.value(item, name=name, depth=depth + 1) for item in value]
        return self._other(value)

    def _number(self, value: float, name: str) -> float | str:
        if isinstance(value, int) and not name.endswith(_NUMBER_NAMES) and looks_like_card(value):
            return DIGITS_MASK
        return value + 0  # a plain number, also of an IntEnum or a client library's subclass

    def _other(self, value: object) -> str:
        if isinstance(value, bytes | bytearray | memoryview):
            return f"[{len(value)} bytes]"
        if isinstance(value, datetime):
            return value.isoformat()
        return self.text(str(value))

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Mask one event (a structlog processor)."""
        return {name: self.value(value, name=name) for name, value in event.items()}


def _escaped(character: str) -> str:
    return character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
