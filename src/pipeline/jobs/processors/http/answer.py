"""What is taken out of a service's answer."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from pipeline.contracts.json_pointer import value_at


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """Return the body, or None where it has more than ``limit`` bytes (the connection is then closed)."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            response.close()
            return None
    return bytes(body)


def parse(body: bytes | None) -> Any:
    """Return the JSON document, or None where the body is none. Numbers stay the text they are."""
    if not body:
        return None
    try:
        return json.loads(body, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None


def point(document: Any, pointer: str) -> str:
    """Return the text that a JSON pointer leads to; empty where it leads nowhere or to null."""
    try:
        value = value_at(document, pointer)
    except LookupError:
        return ""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
