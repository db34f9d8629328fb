"""Secrets in mounted files: one rule for all of them.

A file is opened by its path each time, since mounted secrets are replaced by swapping a symbolic link. One line end
after the secret is stripped, because editors add one. Anything else that is not the secret is refused, not repaired: it
is the sign of a wrong file.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from pipeline.errors import FatalError

_MAX_BYTES: Final = 16_384
_LINE_END: Final = re.compile(r"\r?\n\Z")
_WORD: Final = re.compile(r"[\x21-\x7e]+")

_TIMEOUT: Final = 10.0
"""Seconds until a read of a file system that hangs is abandoned."""

_MAX_AGE: Final = 60.0
"""Seconds until a token is read again although its file looks unchanged."""


class SecretUnreadable(FatalError):
    """A file does not hold a usable secret. The message names the file and the rule, never the content.

    Attributes:
        fault: The end of the message, behind the path, e.g. ``is empty``.
        malformed: Whether the file was read, and its content breaks the rule.
    """

    def __init__(self, path: Path, fault: str, *, malformed: bool = True) -> None:
        super().__init__("secret_unreadable", f"secret file {path} {fault}")
        self.fault = fault
        self.malformed = malformed


def read_secret(path: Path) -> SecretStr:
    """Return the secret in a file, for example a password or a private key in PEM.

    Raises:
        SecretUnreadable: The file cannot be read, is empty, has more than 16,384 bytes, is not UTF-8, begins or ends
            with white space, or holds a character that is not printable.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(raw) > _MAX_BYTES:
        raise SecretUnreadable(path, f"is longer than {_MAX_BYTES} bytes")
    text = _text(raw)
    if text is None:
        raise SecretUnreadable(path, "is not UTF-8 text")
    text = _LINE_END.sub("", text)
    if not text:
        raise SecretUnreadable(path, "is empty")
    if text != text.strip() or not all(line.isprintable() for line in text.splitlines()):
        raise SecretUnreadable(path, "must hold the secret alone: printable text, and at most one newline after it")
    return SecretStr(text)


def _text(raw: bytes) -> str | None:
    # the error of a failed decoding holds the bytes: it must not become the context of another one
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _unreadable(path: Path, error: OSError) -> SecretUnreadable:
    return SecretUnreadable(path, f"cannot be read: {error.strerror or type(error).__name__}", malformed=False)


def read_token(path: Path) -> SecretStr:
    """Return the secret in a file as :func:`read_secret` does, if it can be sent in a header.

    Raises:
        SecretUnreadable: As :func:`read_secret`, or the secret is not one word of visible ASCII characters.
    """
    token = read_secret(path)
    fault = token_fault(token)
    if fault is not None:
        raise SecretUnreadable(path, fault)
    return token


def token_fault(token: SecretStr) -> str | None:
    """Return why a header cannot carry a token, as the rest of a sentence; None where it can."""
    text = token.get_secret_value()
    if not text:
        return "is empty"
    if len(text) > _MAX_BYTES:
        return f"is longer than {_MAX_BYTES} bytes"
    return None if _WORD.fullmatch(text) else "must be one word of visible ASCII characters"


class TokenFile:
    """A token in a file that may be replaced at any time, without a restart.

    Args:
        path: Opened by path each time.
        clock: Monotonic seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._known: tuple[SecretStr, tuple[int, ...], float] | None = None

    async def token(self, *, fresh: bool = False) -> SecretStr:
        """Return the token that the file holds now.

        The file is read again when it was replaced or written, and once a minute in any case.

        Args:
            fresh: Read the file again in any case: the token was refused.

        Raises:
            SecretUnreadable: As :func:`read_token`, or reading took longer than 10 seconds.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asyncio.to_thread(self._current, fresh=fresh)
        except TimeoutError as error:
            fault = f"cannot be read: reading took over {_TIMEOUT:g} s"
            raise SecretUnreadable(self._path, fault, malformed=False) from error

    def _current(self, *, fresh: bool) -> SecretStr:
        try:
            status = self._path.stat()
        except OSError as error:
            raise _unreadable(self._path, error) from error
        # taken before the file is read: a replacement during the read is noticed by the next call
        seen, now = (status.st_mtime_ns, status.st_ino, status.st_size), self._clock()
        known = self._known
        if not fresh and known is not None and known[1] == seen and now < known[2] + _MAX_AGE:
            return known[0]
        token = read_token(self._path)
        self._known = token, seen, now
        return token
