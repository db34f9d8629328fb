"""One connection to an ingress: sends raw bytes, and reads all answers until it is closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.webhooks.testing import Serving

SECONDS: Final = 5.0
"""No case needs so long."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer.

    Attributes:
        status: Its HTTP status.
        head: Status line and headers, as received.
        body: As long as its head says.
    """

    status: int
    head: bytes
    body: bytes

    def __str__(self) -> str:
        """The status, and the rule of a refusal: ``202``, ``400 malformed``."""
        return " ".join([str(self.status), *self.rules])

    @property
    def rules(self) -> list[str]:
        """The rule of each finding of a problem document; the body of any other answer must be empty."""
        if b"application/problem+json" not in self.head or not self.body:
            assert self.body == b"", self
            return []
        document = json.loads(self.body)
        assert document["status"] == self.status
        return [finding["rule"] for finding in document.get("errors", [document])]


async def exchange(here: Serving, pieces: Sequence[bytes], answers: int, *, half_close: bool = False) -> list[Answered]:
    """Send the pieces one by one; return the answers until the server closes.

    Args:
        here: A running ingress.
        pieces: The server reads each before the next is sent.
        answers: Once so many have come, the sender ends its side; before that it goes on waiting.
        half_close: The sender ends its side at once behind the last piece.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
    bodiless = b"".join(pieces).startswith(b"HEAD ")
    found: list[Answered] = []
    try:
        async with asyncio.timeout(SECONDS):
            await _send(writer, pieces, half_close=half_close)
            while True:
                if len(found) == answers and not half_close and not writer.is_closing():
                    _end(writer)
                answer = await _answer(reader, bodiless=bodiless)
                if answer is None:
                    return found
                found += [answer] if answer.status >= 200 else []
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes], *, half_close: bool) -> None:
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)
    except ConnectionError:
        return  # it has answered already, and closed
    if half_close:
        _end(writer)


def _end(writer: asyncio.StreamWriter) -> None:
    try:
        writer.write_eof()
    except OSError:
        writer.close()


async def _answer(reader: asyncio.StreamReader, *, bodiless: bool) -> Answered | None:
    """Return the next answer, or None at the end. Bytes that begin no HTTP/1 answer are a failure."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise AssertionError(error.partial[:200]) from error
        return None
    except ConnectionError:
        return None
    assert head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), head[:200]
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    body = await reader.readexactly(0 if bodiless else int(fields.get(b"content-length", b"0")))
    return Answered(int(head.split()[1]), head, body)
