"""Masks text and log events, so that they contain no card numbers, PINs, tokens, secrets or queries of URLs.

The first protection is the rule that no code logs such data. It is the only protection for all cards: eCard Systems may
number cards from ``100001``, and no pattern can distinguish six digits from a count. This module is the second
protection. It masks, anywhere in a text:

- runs of 13 or more digits, also grouped by spaces or dashes, with or without a correct check digit (loyalty and gift
  cards have none). Unix milliseconds have 13 digits too, so write times in ISO 8601;
- in text of partners (``digits=FOREIGN_DIGITS``), runs of six or more digits;
- bearer and basic credentials, JWTs, ``name=value`` and ``"name": "value"`` if the name means a secret or
  is one of the sensitive fields of events (``contracts.sensitive``);
- the query, the fragment and the credentials of any URL.

UUIDs, hex digests (16, 32, 40 or 64 characters) and ``traceparent`` values stay readable. :class:`Redaction` applies
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
"""Minimum length of a run of digits that our own text masks as a card number."""

FOREIGN_DIGITS: Final = 6
"""The same for text of a partner (ECS numbers cards from 100001)."""

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
"""In a text, any name with one of these endings is secret, also without a separator before the ending."""

# Every repetition is bounded or possessive, so that hostile text costs only linear time.
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
"""Names, ids and times: values that need no search by patterns. Most values of a log line are of this form."""

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
        return whole  # small numbers in a row, such as "1 2 3 4 5 6 7 8 9 10 11"; card numbers have larger groups
    return DIGITS_MASK


def _cut_url(match: re.Match[str]) -> str:
    rest = match["rest"]
    end = min((index for index in map(rest.find, "?#") if index >= 0), default=len(rest))
    authority, slash, path = rest[:end].partition("/")
    host = authority.rpartition("@")[2]
    return f"{match['scheme']}{host}{slash}{path}{'?…' if end < len(rest) else ''}"


def _mask_assigned(text: str) -> str:
    """Mask the value after ``name=`` or ``"name":``; mask a quoted value completely."""
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

    Idempotent. Time is linear in the length of the text, so you may pass text of strangers, bounded only by its reader.
    Mask first and truncate afterwards: truncated text may contain a piece that no pattern matches.

    Args:
        text: Any text.
        digits: ``CARD_DIGITS`` for our own text, ``FOREIGN_DIGITS`` for text of a partner.
    """
    if _HARMLESS.fullmatch(text):
        return text
    for step in _STEPS:
        text = step(text)
    return _PATTERNS[digits].sub(_masked_run, text)


def drop_urls(text: str) -> str:
    """Return the text with each URL replaced by ``[url]``, for text that must not contain any address."""
    return _URL.sub(URL_MASK, text)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether a field, header or column of this name holds a secret, card data or personal data.

    The last words of the name decide: ``access_token``, ``authToken``, ``X-Webhook-Secret`` and ``merchant_telephone``
    hold such data, ``token_seconds_left`` does not.
    """
    snake = _snake(name)
    if snake.rpartition("_")[2] in _SECRET_WORDS or snake.endswith(_SECRET_ENDINGS):
        return True
    return f"_{snake}".endswith(_SENSITIVE_ENDINGS)


def looks_like_card(number: int) -> bool:
    """Return whether a number has 13 to 19 digits and a correct check digit (Luhn), like a payment card."""
    text = str(abs(number))
    if not CARD_DIGITS <= len(text) <= 19:  # noqa: PLR2004 - ISO/IEC 7812: at most 19 digits
        return False
    total = sum(int(digit) for digit in text[-1::-2])
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in text[-2::-2])) % 10 == 0


_SHORTEST_SECRET: Final = 6
"""The redaction does not search for shorter secrets, because it would mask harmless text."""
_SECRETS: Final = 256
_MAX_TEXT: Final = 16_384
_MAX_DEPTH: Final = 6
_NUMBER_NAMES: Final = ("_ms", "_us", "_ns", "offset", "bytes", "size")


class Redaction:
    """Masks log events by field name, by pattern, and by the secrets of this process.

    It masks nested mappings and sequences down to six levels. Any value that is not a JSON value becomes masked text,
    so that the renderer never calls ``repr`` on an unmasked object.
    """

    def __init__(self, secrets: Iterable[SecretStr] = ()) -> None:
        self._secrets: deque[str] = deque(maxlen=_SECRETS)
        for secret in secrets:
            self.add(secret)

    def add(self, secret: SecretStr) -> None:
        """Mask this value from now on. Keeps the newest 256 secrets, since tokens rotate."""
        value = secret.get_secret_value()
        if len(value) >= _SHORTEST_SECRET and value not in self._secrets:
            self._secrets.append(value)

    def text(self, text: str) -> str:
        """Return at most 16,384 characters of the text, masked, without secrets and without control characters.

        Senders may write anything into keys and subjects of events. Line ends and tabs stay: tracebacks need them.
        """
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        masked = mask_text(text)
        cut = masked if len(masked) <= _MAX_TEXT else f"{masked[:_MAX_TEXT]}…"
        return cut if cut.isprintable() else "".join(map(_escaped, cut))

    def value(self, value: object, *, name: str = "", depth: int = 0) -> Any:
        """Return a value, masked, for a field of the given name."""
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
        return value + 0  # makes a plain number of an IntEnum or of a library's subclass

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
