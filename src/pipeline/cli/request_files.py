"""Reads a request from files: headers as lines or JSON, and the raw body."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from pipeline.cli.exits import UsageRefused
from pipeline.contracts import Headers

_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_LARGEST: Final = 32 << 20


def read_bytes(file: Path) -> bytes:
    """Return the contents of a file.

    Raises:
        UsageRefused: It cannot be read, or is larger than any accepted request.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UsageRefused("input_unreadable", f"{file} cannot be read ({error.strerror})") from None
    if len(content) > _LARGEST:
        raise UsageRefused("input_unreadable", f"{file} is larger than {_LARGEST} bytes")
    return content


def read_headers(file: Path) -> Headers:
    """Return the headers in a file: ``Name: value`` lines, as ``curl -D`` writes them, or JSON.

    JSON is an object of strings or lists of strings, or a list of pairs. The result has lower-case names, in the order
    of the file and with repetitions. A request line or status line is skipped.

    Raises:
        UsageRefused: It holds no headers.
    """
    content = read_bytes(file)
    headers = _of_json(content) if content.lstrip()[:1] in (b"{", b"[") else _of_lines(content)
    if not headers:
        raise UsageRefused(
            "headers_unreadable",
            f"{file} holds no headers: write lines `Name: value`, or a JSON object such as "
            '{"Content-Type": "application/json"}',
        )
    return headers


def _of_lines(content: bytes) -> Headers:
    found = []
    for line in content.split(b"\n"):
        name, colon, value = line.rstrip(b"\r").partition(b":")
        if colon and _NAME.fullmatch(name):
            found.append((name.decode().lower(), value.strip(b" \t")))
    return tuple(found)


def _of_json(content: bytes) -> Headers:
    try:
        data = json.loads(content)
        pairs = list(data.items()) if isinstance(data, dict) else [(name, value) for name, value in data]
        return tuple(
            (str(name).lower(), _bytes(one))
            for name, value in pairs
            for one in (value if isinstance(value, list) else [value])
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ()


def _bytes(value: Any) -> bytes:
    """Return a value as it was on the wire: Latin-1 if possible, otherwise UTF-8."""
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()
