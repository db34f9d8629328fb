"""The server of the suites ``http`` and ``transfer``, on loopback. It needs little CPU time.

POST is answered by a card service's ``{"id": "a1"}``, GET by so many bytes as the path names, PUT by 200 once the whole
body came. It takes requests with a Content-Length alone, and prints its URL in one JSON line when it is ready.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvloop

_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_ANSWER: Final = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"id": "a1"}'
_STORED: Final = b'HTTP/1.1 200 OK\r\nETag: "stored-by-the-benchmark"\r\nContent-Length: 0\r\n\r\n'
_FILE: Final = 'HTTP/1.1 {}\r\nETag: "file-of-the-benchmark"\r\nContent-Length: {}\r\n{}\r\n'
_BLOCK: Final = bytes(1 << 18)


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._answer = b""
        self._to_send = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport

    def pause_writing(self) -> None:
        """Stop sending the file."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue to send the file."""
        self._paused = False
        self._send()

    def data_received(self, data: bytes) -> None:
        """Receive a head, or bytes of a body."""
        if not self._missing:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self._begin(head)
            if not self._missing:
                return
        self._missing -= len(data)
        if not self._missing:
            self._transport.write(self._answer)

    def _begin(self, head: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            self._serve(int(path.rpartition(b"/")[2]), re.search(rb"\r\nrange: bytes=(\d+)-(\d*)", head, re.IGNORECASE))
            return
        length = _LENGTH.search(head)
        self._missing = int(length[1]) if length else 0
        self._answer = _STORED if method == b"PUT" else _ANSWER
        if b"100-continue" in head:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve(self, size: int, asked: re.Match[bytes] | None) -> None:
        status, further, self._to_send = "200 OK", "", size
        if asked:
            first, last = int(asked[1]), int(asked[2] or size - 1)
            status, further = "206 Partial Content", f"Content-Range: bytes {first}-{last}/{size}\r\n"
            self._to_send = last - first + 1
        self._transport.write(_FILE.format(status, self._to_send, further).encode())
        self._send()

    def _send(self) -> None:
        while self._to_send and not self._paused and not self._transport.is_closing():
            piece = _BLOCK[: self._to_send]
            self._to_send -= len(piece)
            self._transport.write(piece)


@contextmanager
def running_local_server() -> Iterator[str]:
    """Run the server in its own process; return its URL."""
    command = [sys.executable, "-m", "benchmarks.local_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
        try:
            yield str(json.loads(process.stdout.readline() if process.stdout else "")["url"])
        finally:
            process.terminate()


async def serve() -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(serve())
