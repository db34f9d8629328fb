"""A raw HTTP server that answers by script, to simulate misbehaving servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Received:
    """One received request.

    Attributes:
        target: The request line's target, byte for byte.
        headers: By name in lower case; the last of equal names.
    """

    method: str
    target: str
    headers: dict[str, str]


@dataclass(slots=True)
class Exchange:
    """One request that waits for its answer."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send the status line and headers."""
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers), "", ""]
        await self.send("\r\n".join(lines).encode())

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole, well-formed answer; ``_`` in header names becomes ``-``."""
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await self.head(status, [*named, ("Content-Length", str(len(body))), ("Connection", "close")])
        await self.send(body)

    async def body(self) -> bytes:
        """Read the request's body, by its Content-Length."""
        return await self.reader.readexactly(int(self.request.headers.get("content-length", "0")))


Act = Callable[[Exchange], Awaitable[None]]
"""Answers one request; the connection is closed afterwards."""


@dataclass(slots=True)
class ScriptedServer:
    """The n-th request is answered by the n-th act, every later one by the last.

    Attributes:
        url: ``http://127.0.0.1:<port>``.
        requests: The requests received so far.
    """

    acts: list[Act]
    url: str = ""
    requests: list[Received] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            act = self.acts[min(len(self.requests), len(self.acts) - 1)]
            self.requests.append(Received(method, target, headers))
            await act(Exchange(self.requests[-1], reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is often the point
        finally:
            writer.close()


@asynccontextmanager
async def scripted_server(*acts: Act) -> AsyncIterator[ScriptedServer]:
    """Run a server on a free loopback port while the block runs."""
    script = ScriptedServer(list(acts))
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            handlers.add(task)
            task.add_done_callback(handlers.discard)
        await script.serve(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 20)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()
