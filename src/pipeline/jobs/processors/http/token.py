"""The service's token, in a file that may be replaced at any time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipeline.errors import TransientError

_MAX_BYTES = 65_536


class FileToken:
    """Reads the token again whenever the file changes, so that a rotation needs no restart.

    Args:
        path: Opened by path each time, so that a replaced file or link counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._value = ""

    async def value(self) -> str:
        """Return the token that the file holds now.

        Raises:
            TransientError: ``http_token_unavailable``: the file is missing, empty, too long or no printable ASCII.
        """
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._value = _checked(await asyncio.to_thread(self._read), self._path)
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            raise _unavailable(self._path, type(error).__name__) from None
        return self._value

    def _read(self) -> str:
        with self._path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii").strip()


def _checked(value: str, path: Path) -> str:
    if not value or not value.isprintable():
        raise _unavailable(path, "empty or not one line")
    return value


def _unavailable(path: Path, why: str) -> TransientError:
    return TransientError("http_token_unavailable", f"Processor http cannot read its token from {path} ({why}).")
