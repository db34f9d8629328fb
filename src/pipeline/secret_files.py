"""Reads secrets from mounted files, with the same rules for all of them.

It opens a file by its path each time, because mounted secrets are replaced by swapping a symbolic link. It strips one
line end after the secret, because editors add one. It refuses any other surrounding text, which is a sign of a wrong
file. A secret that looks odd but may be right causes a doubt, which ``config check`` shows.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import SecretStr

from pipeline.errors import FatalError

_MAX_BYTES: Final = 16_384
_LINE_END: Final = re.compile(r"\r?\n\Z")
_WORD: Final = re.compile(r"[\x21-\x7e]+")
_BYTE_ORDER_MARK: Final = "\ufeff"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_PEM: Final = "-----BEGIN "
_QUOTED: Final = re.compile(r"""(["'`]).*\1|[\u201c\u2018].*[\u201d\u2019]""", re.DOTALL)
_ASSIGNED: Final = re.compile(r"(export )?[A-Z][A-Z0-9_]*=[^=]")
_PLACEHOLDERS: Final = frozenset({"secret", "changeme", "change-me", "change_me", "password", "placeholder", "todo"})
_TLS_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key is not that of the first certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in PEM",
    "NO_START_LINE": "there is no certificate or key in PEM",
    "CERTIFICATE_VERIFY_FAILED": "the chain does not fit together",
}
_FEW_LETTERS: Final = 8
"""Secrets with fewer characters are easy to guess, and are probably truncated."""

_ALONE: Final = "must hold the secret alone"
_STANDARD_VERSION: Final = "v1,whsec_"

_TIMEOUT: Final = 10.0
"""Seconds after which a read is abandoned, in case the file system hangs."""

_MAX_AGE: Final = 60.0
"""Seconds after which a token is read again even if its file looks unchanged."""

Doubt = Callable[[str], None]
"""Called with an oddity of a usable secret, as the end of a sentence that begins with the file."""


@dataclass(frozen=True, slots=True)
class Holds:
    """A note in a setting's type: the kind of content of the file that the setting names.

    Attributes:
        content: ``secret``: what :func:`read_secret` accepts; ``token``: what :func:`read_token` accepts; ``key``: what
            only its own reader checks.
    """

    content: Literal["secret", "token", "key"]


SecretPath = Annotated[Path, Holds("secret")]
KeyPath = Annotated[Path, Holds("key")]
TokenPath = Annotated[Path, Holds("token")]


def _no_doubt(_text: str) -> None:
    """Ignore an oddity; only the check of the settings shows it."""


class SecretUnreadable(FatalError):
    """A file does not hold a usable secret. The message names the file and the rule, never the content.

    The message leaves out the path of a missing file, because the "path" may be the secret in the wrong place.

    Attributes:
        fault: The end of the message, after the path, e.g. ``is empty``.
        malformed: Whether the file could be read but its content breaks a rule.
    """

    def __init__(self, path: Path, fault: str, *, malformed: bool = True) -> None:
        named = str(path) if lexists(path) else "(at the path given in the settings)"
        super().__init__("secret_unreadable", f"secret file {named} {fault}")
        self.fault = fault
        self.malformed = malformed


class CertificateUnusable(ValueError):
    """OpenSSL does not take the files of a client certificate. No text names their content or their paths.

    Attributes:
        files: Which of them: ``cert_file``, ``key_file`` or both.
        why: What is wrong.
    """

    def __init__(self, files: tuple[str, ...], why: str) -> None:
        super().__init__(f"{', '.join(files)}: cannot be used: {why}")
        self.files = files
        self.why = why


def load_client_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    """Load a certificate chain and its key into a TLS context; connections that are made later use them.

    Raises:
        CertificateUnusable: A file cannot be read, is not PEM of the right kind, or the two do not belong together.
    """
    for name, file in (("cert_file", cert_file), ("key_file", key_file)):
        try:
            file.open("rb").close()
        except (OSError, ValueError) as error:
            raise CertificateUnusable((name,), tls_fault(error)) from error
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise CertificateUnusable(("cert_file", "key_file"), tls_fault(error)) from error


def tls_fault(error: OSError | ValueError) -> str:
    """Return why OpenSSL does not take a file; the text names neither its content nor its path."""
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown"
        return _TLS_REASONS.get(reason, f"no PEM of the right kind ({reason.lower().replace('_', ' ')})")
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def _no_password() -> str:
    # without this OpenSSL asks on the terminal, and the process hangs
    raise ValueError("key_file is encrypted; give it without a passphrase")


def read_secret(path: Path, doubt: Doubt = _no_doubt) -> SecretStr:
    """Return the secret in a file, for example a password or a private key in PEM.

    Args:
        path: The file.
        doubt: Called for each oddity of a secret that may be right, such as quotes around it or an unusual length.

    Raises:
        SecretUnreadable: The file cannot be read, is empty, has more than 16,384 bytes, is not UTF-8, begins with a
            byte order mark, begins or ends with white space, has several lines and is no PEM, or holds a character that
            is not printable.
    """
    raw = _bytes(path)
    if len(raw) > _MAX_BYTES:
        raise SecretUnreadable(path, f"is longer than {_MAX_BYTES} bytes")
    written = _text(raw)
    if written is None:
        hint = "UTF-16; save it as UTF-8" if raw.startswith(_UTF_16) else "not UTF-8 text"
        raise SecretUnreadable(path, f"is {hint}")
    text = _LINE_END.sub("", written)
    fault = _fault(text)
    if fault is not None:
        raise SecretUnreadable(path, fault)
    if written.endswith("\r\n") and not text.startswith(_PEM):
        doubt("ends with a Windows line end (CRLF), which is not taken for a part of the secret; save it without one")
    for oddity in _oddities(text):
        doubt(oddity)
    return SecretStr(text)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError:  # a path with a NUL
        raise SecretUnreadable(path, "cannot be read: this is no path", malformed=False) from None


def _text(raw: bytes) -> str | None:
    # return instead of raising here: a decoding error contains the bytes, and must not be chained
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _fault(text: str) -> str | None:
    """Return why a text is not a valid secret. Shows positions and classes of characters, never a character itself."""
    if not text:
        return "is empty; write the secret into it"
    if text.startswith(_BYTE_ORDER_MARK):
        return f"{_ALONE}: it begins with a byte order mark; save it as UTF-8 without one"
    if text != text.strip():
        return f"{_ALONE}{_blank(text)}"
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        for column, character in enumerate(line, start=1):
            if not character.isprintable():
                return f"{_ALONE}: character {column} of line {number} is {_named(character)}; delete that"
    if len(lines) > 1 and not text.startswith(_PEM):
        return f"{_ALONE}: a second line follows it; delete that (only a key in PEM has several)"
    return None


def _blank(text: str) -> str:
    """Describe the white space at the start or the end of a text."""
    if not text.strip():
        return ", and holds nothing but white space; write the secret into it"
    if text != text.lstrip():
        return f": {_named(text[0])} comes before it; delete that"
    return f": {_named(text[-1])} comes after it; delete that (one line end at the end may stay)"


def _named(character: str) -> str:
    """Return the name of an invalid character, such as ``a no-break space (U+00A0)``."""
    code = f"U+{ord(character):04X}"
    name = {" ": "a blank", "\t": "a tab", "\n": "a line end", "\r": "a carriage return"}.get(character)
    return f"{name or unicodedata.name(character, 'a control character').lower()} ({code})"


def _oddities(text: str) -> list[str]:
    """Return the oddities of a secret that may still be right."""
    found = []
    if len(text) < _FEW_LETTERS:
        found.append(f"holds fewer than {_FEW_LETTERS} characters; write the whole secret, or ask for a longer one")
    if len(text) > 1 and _QUOTED.fullmatch(text):
        found.append("holds a text in quotes, which are taken for a part of the secret; delete them if they are none")
    if text.startswith(_STANDARD_VERSION):
        found.append(f"begins with {_STANDARD_VERSION}; if the sender signs by Standard Webhooks, delete 'v1,'")
    if _ASSIGNED.match(text):
        found.append("looks like NAME=VALUE, all of which is taken for the secret; write the value alone")
    if text.casefold() in _PLACEHOLDERS:
        found.append("holds a placeholder; write the secret into it")
    return found


def _unreadable(path: Path, error: OSError) -> SecretUnreadable:
    return SecretUnreadable(path, f"cannot be read: {error.strerror or type(error).__name__}", malformed=False)


def read_token(path: Path, doubt: Doubt = _no_doubt) -> SecretStr:
    """Return the secret in a file, like :func:`read_secret`, if a header can carry it.

    Raises:
        SecretUnreadable: As :func:`read_secret`, or the secret is not one word of visible ASCII characters.
    """
    token = read_secret(path, doubt)
    fault = token_fault(token)
    if fault is not None:
        raise SecretUnreadable(path, fault)
    return token


def token_fault(token: SecretStr) -> str | None:
    """Return why a header cannot carry a token, as the end of a sentence; None if it can."""
    text = token.get_secret_value()
    if not text:
        return "is empty"
    if len(text) > _MAX_BYTES:
        return f"is longer than {_MAX_BYTES} bytes"
    return None if _WORD.fullmatch(text) else "must be one word of visible ASCII characters"


class TokenFile:
    """A token in a file. The file may be replaced at any time, without a restart.

    Args:
        path: The file; it is opened by its path each time.
        clock: Monotonic seconds.
        trusted_seconds: How long to return the token without looking at its file, for callers that ask very often.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic, trusted_seconds: float = 0.0
    ) -> None:
        self._path = path
        self._clock = clock
        self._trusted_seconds = trusted_seconds
        self._trusted_until = 0.0
        self._known: tuple[SecretStr, tuple[int, ...], float] | None = None

    async def token(self, *, fresh: bool = False) -> SecretStr:
        """Return the token in the file, at most ``trusted_seconds`` old.

        It reads the file again if that was replaced or written, and at least once a minute.

        Args:
            fresh: Whether to read the file in any case, because the token was refused.

        Raises:
            SecretUnreadable: As :func:`read_token`, or reading took longer than 10 seconds.
        """
        known = self._known
        if not fresh and known is not None and self._clock() < self._trusted_until:
            return known[0]
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asyncio.to_thread(self._current, fresh=fresh)
        except TimeoutError as error:
            fault = f"cannot be read: reading took over {_TIMEOUT:g} s"
            raise SecretUnreadable(self._path, fault, malformed=False) from error

    def _current(self, *, fresh: bool) -> SecretStr:
        now = self._clock()
        try:
            token = self._looked_up(now, fresh=fresh)
        except SecretUnreadable:
            self._trusted_until = 0.0  # the file has changed
            raise
        self._trusted_until = now + self._trusted_seconds
        return token

    def _looked_up(self, now: float, *, fresh: bool) -> SecretStr:
        try:
            status = self._path.stat()
        except OSError as error:
            raise _unreadable(self._path, error) from error
        # taken before the read, so that the next call notices a replacement during the read
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        known = self._known
        if not fresh and known is not None and known[1] == seen and now < known[2] + _MAX_AGE:
            return known[0]
        token = read_token(self._path)
        self._known = token, seen, now
        return token
