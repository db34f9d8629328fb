"""Reading a mounted secret."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from pipeline.jobs.ecs.errors import TokenUnavailable

_LIMIT: Final = 16_384
_TIMEOUT: Final = 10.0
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


async def read_secret_file(path: Path, *, what: str) -> SecretStr:
    """Return the secret in a file, opened by its path each time, since mounted secrets are swapped by symlink.

    One newline at the end is stripped. Any other white space, an empty file, more than 16 KiB or a character that
    cannot stand in a header is refused rather than repaired: it is a sign of a wrong file.

    Raises:
        TokenUnavailable: With a message that names the file and the rule, never its content.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            raw = await asyncio.to_thread(_read, path)
    except TimeoutError as error:
        raise TokenUnavailable(
            "callback_token_unreadable", f"{what}: reading {path} took over {_TIMEOUT:g} s"
        ) from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise TokenUnavailable("callback_token_unreadable", f"{what}: {path} cannot be read: {why}") from error
    return checked_secret(raw, what=f"{what}: {path}")


def checked_secret(raw: bytes, *, what: str) -> SecretStr:
    """Return the secret in these bytes, or raise as :func:`read_secret_file`."""
    text = raw.decode("latin-1")
    text = text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    if not text:
        raise TokenUnavailable("callback_token_malformed", f"{what} is empty")
    if len(raw) > _LIMIT:
        raise TokenUnavailable("callback_token_malformed", f"{what} is longer than {_LIMIT} bytes")
    if not _VISIBLE.fullmatch(text):
        rule = "must hold one word of visible ASCII characters, and at most one newline after it"
        raise TokenUnavailable("callback_token_malformed", f"{what} {rule}")
    return SecretStr(text)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LIMIT + 1)
