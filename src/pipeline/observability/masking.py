"""Masking of text and of log events: cards, PINs, tokens, secrets and queries of URLs never get out.

The rule that no code ever logs them is the first protection, and the only one for every card: eCard Systems may number
cards from ``100001``, six digits, which no pattern can tell from a count. This module is the second. It masks, anywhere
in a text:

- runs of 13 or more digits, also grouped by spaces or dashes, whether or not their check digit is right (loyalty
  and gift cards need none). Numbers of 13 digits are also what Unix milliseconds look like: write times in ISO 8601;
- in text of partners (``digits=FOREIGN_DIGITS``) every run of six or more;
- bearer and basic credentials, JWTs, ``name=value`` and ``"name": "value"`` where the name says that it is secret, or
  is one of the sensitive fields of events (``contracts.sensitive``);
- the query, the fragment and the credentials of any URL.

UUIDs, digests in hex (16, 32, 40 or 64 characters) and ``traceparent`` values stay readable. :class:`Redaction` applies
it to every log line right before it is rendered.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final

from pydantic import SecretStr

from pipeline.contracts import sensitive

MASK: Final = sensitive.MASK
DIGITS_MASK: Final = "[digits]"
URL_MASK: Final = "[url]"

CARD_DIGITS: Final = 13
"""Shortest run of digits that is taken for a card number in our own text."""

FOREIGN_DIGITS: Final = 6
"""Shortest run of digits that is taken for a card number in what a partner wrote (ECS numbers cards from 100001)."""

_SECRET_WORDS: Final = frozenset(
    {"authorization", "cookie", "credential", "credentials", "jwt", "otp", "passphrase", "passwd", "password"}
    | {"secret", "secrets", "sig", "signature", "token", "tokens", "apikey"}
    | {"card", "cardnumber", "cvc", "cvc2", "cvv", "cvv2", "pan", "pin", "track1", "track2"}
)
_SECRET_ENDINGS: Final = ("api_key", "private_key", "access_key", "card_number")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()


_SENSITIVE_ENDINGS: Final = tuple(f"_{_snake(name)}" for name in sorted(sensitive.SENSITIVE_IN_LOGS))
_TEXT_ENDINGS: Final = (
    *("token", "secret", "password", "passwd", "signature", "credential", "apikey", "authorization", "cookie"),
    *(ending.replace("_", "") for ending in _SENSITIVE_ENDINGS),
)
"""In a text any name that ends so is secret, whatever precedes the ending without a separator."""

# Every repetition is bounded or consumes what it has seen, so that hostile text costs time linear in its length.
_URL: Final = re.compile(r"\b(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{1,15}://)(?P<rest>[^\s\"'<>`]*)")
_PATH: Final = re.compile(r"(?P<path>/[^\s\"'<>`?]*)(?P<query>\?(?!…)[^\s\"'<>`]+)?")
_JWT: Final = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,4}")
_SCHEME_CREDENTIALS: Final = re.compile(r"\b(?P<scheme>bearer|basic)\s{1,4}(?!\[masked\])[\w.~+/=-]{6,}", re.IGNORECASE)
_NAMED: Final = re.compile(r"(?<![\w-])(?P<name>[\w-]++)(?:=[\"']?|[\"']\s{0,4}[:=]\s{0,4}[\"']?)(?!\[)")
_VALUE: Final = re.compile(r"(?<=\")(?:[^\"\\]|\\.)+|(?<=')(?:[^'\\]|\\.)+|[^\s\"',;&}\]]+")
_HEADER: Final = re.compile(
    r"(?P<name>authorization|cookie|(?<=-)(?:token|secret|key))\s{0,2}:\s{0,4}(?!\[)[^\s\"',]+", re.IGNORECASE
)
_PIN: Final = re.compile(r"\b(?P<name>pin|cvv2?|cvc2?)(?P<sep>\W{1,3}(?:is\s)?)\d{3,12}\b", re.IGNORECASE)
_KEPT: Final = (
    r"\b[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b"  # traceparent
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"  # UUID
    r"|\b(?=(?:[0-9]{0,63}[a-f]){2})(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})\b"  # digest
)
_HARMLESS: Final = re.compile(rf"[a-z_.-]*|{_KEPT}|\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{{1,6}})?Z")
"""Names, ids and times: most values of a log line, known at one look to hold nothing that a pattern could find."""

_GROUPED: Final = rf"\d(?:(?:[ \u00a0-](?!{_KEPT}))?\d){{{CARD_DIGITS - 1},}}"
_LEAST_GROUP: Final = 3


def _digits(least: int) -> re.Pattern[str]:
    short = rf"|(?P<short>\d{{{least},}})" if least < CARD_DIGITS else ""
    return re.compile(rf"(?P<kept>{_KEPT})|(?P<run>{_GROUPED}){short}")


_PATTERNS: Final = {least: _digits(least) for least in (FOREIGN_DIGITS, CARD_DIGITS)}


def _masked_run(match: re.Match[str]) -> str:
    if match["kept"]:
        return match["kept"]
    whole = match[0]
    if all(len(group) < _LEAST_GROUP for group in re.split(r"[ \u00a0-]", whole)):
        return whole  # a row of small numbers, such as "1 2 3 4 5 6 7 8 9 10 11"; no card is grouped like that
    return DIGITS_MASK


def _cut_url(match: re.Match[str]) -> str:
    rest = match["rest"]
    end = min((index for index in map(rest.find, "?#") if index >= 0), default=len(rest))
    authority, slash, path = rest[:end].partition("/")
    host = authority.rpartition("@")[2]
    return f"{match['scheme']}{host}{slash}{path}{'?…' if end < len(rest) else ''}"


def _mask_assigned(text: str) -> str:
    """Mask the value after ``name=`` or ``"name":``, the whole value if it is quoted."""
    if not any(sign in text for sign in "='\""):
        return text
    pieces: list[str] = []
    done = 0
    for match in _NAMED.finditer(text):
        value = _VALUE.match(text, match.end()) if match.start() >= done and _is_secret_in_text(match["name"]) else None
        if value:
            pieces += (text[done : match.end()], MASK)
            done = value.end()
    return "".join((*pieces, text[done:]))


def _is_secret_in_text(name: str) -> bool:
    return is_secret_name(name) or name.replace("_", "").replace("-", "").lower().endswith(_TEXT_ENDINGS)


_STEPS: Final[tuple[Callable[[str], str], ...]] = (
    partial(_URL.sub, _cut_url),
    partial(_PATH.sub, lambda match: f"{match['path']}?…" if match["query"] else match["path"]),
    partial(_SCHEME_CREDENTIALS.sub, lambda match: f"{match['scheme']} {MASK}"),
    partial(_JWT.sub, MASK),
    _mask_assigned,
    partial(_HEADER.sub, lambda match: f"{match['name']}: {MASK}"),
    partial(_PIN.sub, lambda match: f"{match['name']}{match['sep']}{MASK}"),
)


def mask_text(text: str, *, digits: int = CARD_DIGITS) -> str:
    """Return the text with card-number-like digits, credentials and URL queries masked.

    Pure and idempotent; time is linear in the text's length, so text of strangers may be given whole (bounded by its
    reader). Mask first and cut afterwards: a cut may leave a piece that no pattern knows.

    Args:
        text: Any text.
        digits: ``CARD_DIGITS`` for our own text, ``FOREIGN_DIGITS`` for what a partner wrote.
    """
    if _HARMLESS.fullmatch(text):
        return text
    for step in _STEPS:
        text = step(text)
    return _PATTERNS[digits].sub(_masked_run, text)


def drop_urls(text: str) -> str:
    """Return the text with each URL replaced by ``[url]``, for text that must name no address at all."""
    return _URL.sub(URL_MASK, text)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether a field, header or column of this name holds a secret, card data or personal data.

    The last words decide: ``access_token``, ``authToken``, ``X-Webhook-Secret`` and ``merchant_telephone`` do,
    ``token_seconds_left`` does not.
    """
    snake = _snake(name)
    if snake.rpartition("_")[2] in _SECRET_WORDS or snake.endswith(_SECRET_ENDINGS):
        return True
    return f"_{snake}".endswith(_SENSITIVE_ENDINGS)


def looks_like_card(number: int) -> bool:
    """Return whether a number has 13 to 19 digits and a right check digit (Luhn), as payment cards have."""
    text = str(abs(number))
    if not CARD_DIGITS <= len(text) <= 19:  # noqa: PLR2004 - ISO/IEC 7812: at most 19 digits
        return False
    total = sum(int(digit) for digit in text[-1::-2])
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in text[-2::-2])) % 10 == 0


_SHORTEST_SECRET: Final = 6
"""A configured secret shorter than this is not searched for: it would blank out innocent text."""
_SECRETS: Final = 256
_MAX_TEXT: Final = 16_384
_MAX_DEPTH: Final = 6
_NUMBER_NAMES: Final = ("_ms", "_us", "_ns", "offset", "bytes", "size")


class Redaction:
    """Masks log events: by field name, by pattern and by the secrets that this process knows.

    It walks nested mappings and sequences down to six levels. Everything that is not a JSON value becomes masked text,
    so that the renderer never calls ``repr`` on an unmasked object.
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
