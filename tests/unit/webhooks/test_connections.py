"""Connections: half-closed, too many, of other versions, and with bodies that cost more than they are."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks import connections
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import SECRET, Serving, serving

HEAD = (
    b"POST /webhooks/ecs/acme HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    b"X-Webhook-Secret: " + SECRET.encode() + b"\r\n"
)
WHOLE = HEAD + b"Content-Length: 2\r\n\r\n{}"
SETTINGS = IngressSettings(port=0)
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_OPEN_FILES = Path("/proc/self/fd")


class Sender:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def statuses(self) -> list[int]:
        """Return the statuses of all answers, up to the end of the connection."""
        async with asyncio.timeout(10):
            everything = await self.reader.read()
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", everything)]

    async def status(self) -> int:
        """Return the status of the next answer, and read all of it."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await self.reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split()[1])

    async def closed(self) -> bool:
        """Return whether the server closes without another word, within half a second."""
        try:
            async with asyncio.timeout(0.5):
                return await self.reader.read() == b""
        except TimeoutError:
            return False


@asynccontextmanager
async def sender(here: Serving, *pieces: bytes, pause: float = 0.0) -> AsyncIterator[Sender]:
    """Connect, send the pieces, and close at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
    try:
        for number, piece in enumerate(pieces):
            await asyncio.sleep(pause if number else 0)
            writer.write(piece)
            await writer.drain()
        yield Sender(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _value(here: Serving, name: str, **labels: str) -> float | None:
    return here.metrics.registry.get_sample_value(f"pipeline_{name}", labels)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("pieces", "statuses"),
    [
        ((WHOLE,), [422]),
        ((HEAD + b"Content-Length: 2\r\n\r\n", b"{}"), [422]),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n"), [422]),
        ((WHOLE + WHOLE,), [422, 422]),
        ((WHOLE + HEAD + b"Content-Length: 9\r\n\r\n{}",), [422, 400]),
        ((HEAD + b"Content-Length: 9\r\n\r\n{}",), [400]),
        ((HEAD + b"Content-Length: 9\r\n\r\n", b"{}"), [400]),
        ((HEAD.replace(b"acme", b"other") + b"Content-Length: 2\r\n\r\n{}",), [404]),
        ((b"hello\r\n\r\n",), [400]),
        ((HEAD,), []),
        ((b"",), []),
    ],
    ids=[
        "one piece",
        "two pieces",
        "chunked",
        "two requests",
        "second one cut off",
        "cut off",
        "cut off later",
        "unknown path",
        "no request",
        "head cut off",
        "nothing",
    ],
)
def test_a_sender_that_closes_its_side_gets_its_answers(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], pieces: tuple[bytes, ...], statuses: list[int]
) -> None:
    """Without an answer it would send again what is stored already. Afterwards the connection is closed."""

    async def run() -> list[int]:
        async with serving(MemoryPublisher(), settings=SETTINGS) as here:
            async with sender(here, *pieces, pause=0.02) as half:
                half.writer.write_eof()
                answers = await half.statuses()
            assert here.ingress.limits.requests.unused
            return answers

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(run()) == statuses


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, chunked", b"identity, chunked", b"gzip", b"identity"])
async def test_another_transfer_encoding_is_refused(coding: bytes) -> None:
    """Nobody undoes it, so the body would be something else than what was signed. The connection is closed."""
    publisher = MemoryPublisher()
    async with (
        serving(publisher, settings=SETTINGS) as here,
        sender(here, HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n") as one,
    ):
        assert await one.statuses() == [400]
    assert publisher.published == []


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /webhooks/ecs/acme\r\n\r\n",
        b"POST /webhooks/ecs/acme\r\nHost: here\r\n\r\n",
        WHOLE.replace(b"HTTP/1.1", b"HTTP/0.9"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/2.0"),
    ],
    ids=["no version", "no version, with a header", "0.9", "2.0"],
)
async def test_a_request_of_another_version_is_answered_as_http_1_0(request_: bytes) -> None:
    """No answer claims to be of a version that is not spoken here."""
    publisher = MemoryPublisher()
    async with serving(publisher, settings=SETTINGS) as here, sender(here, request_) as one:
        async with asyncio.timeout(10):
            assert (await one.reader.read()).startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert publisher.published == []


async def test_the_oldest_connection_without_a_request_is_closed_for_a_new_one() -> None:
    """Connections in use, and those that a sender keeps for its next request, stay open."""
    settings = SETTINGS.model_copy(update={"max_connections": 16})
    async with serving(MemoryPublisher(), settings=settings) as here, sender(here, WHOLE) as kept:
        assert await kept.status() == 422
        async with sender(here, HEAD + b"Content-Length: 2\r\n\r\n{") as busy:
            silent = [sender(here, b"POST /webh") for _ in range(14)]
            opened = [await one.__aenter__() for one in silent]
            for _ in range(3):
                async with sender(here, WHOLE) as new:
                    assert await new.status() == 422
                    assert _value(here, "ingress_connections") == 16
                await asyncio.sleep(0.01)
            assert [await one.closed() for one in opened[:2]] == [True, False]
            assert _value(here, "ingress_connections_closed_total") == 1
            kept.writer.write(WHOLE)
            busy.writer.write(b"}")
            assert [await kept.status(), await busy.status()] == [422, 422]
            for one in silent:
                await one.__aexit__(None, None, None)


async def test_where_all_connections_are_in_use_the_new_one_is_closed() -> None:
    """A request in work is never cut off for a new connection."""
    settings = SETTINGS.model_copy(update={"max_connections": 16})
    head = HEAD + b"Content-Length: 2\r\n\r\n{"
    async with serving(MemoryPublisher(), settings=settings) as here:
        busy = [sender(here, head) for _ in range(16)]
        opened = [await one.__aenter__() for one in busy]
        async with asyncio.timeout(10):
            while _value(here, "ingress_in_flight", integration="acme") != 16:  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.01)
        async with sender(here, b"") as new:
            assert await new.closed()
        for one in opened:
            one.writer.write(b"}")
        assert [await one.status() for one in opened] == [422] * 16
        for holder in busy:
            await holder.__aexit__(None, None, None)


async def test_a_refused_connection_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of connections must not fill the log with a traceback each."""
    settings = SETTINGS.model_copy(update={"max_connections": 16})
    async with serving(MemoryPublisher(), settings=settings) as here:
        busy = [sender(here, HEAD + b"Content-Length: 2\r\n\r\n{") for _ in range(16)]
        opened = [await one.__aenter__() for one in busy]
        async with asyncio.timeout(10):
            while _value(here, "ingress_in_flight", integration="acme") != 16:  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.01)
        async with sender(here, b"") as new:
            assert await new.closed()
        assert _value(here, "ingress_connections") == 16
        for one in opened:
            one.writer.write(b"}")
        assert [await one.status() for one in opened] == [422] * 16
        for holder in busy:
            await holder.__aexit__(None, None, None)
    gc.collect()
    assert caplog.messages == []


@pytest.mark.skipif(not _OPEN_FILES.exists(), reason="needs /proc")
@pytest.mark.parametrize("requests", [300, 6000], ids=["many in line", "unread answers"])
async def test_a_sender_that_reads_no_answers_keeps_nobody_out(requests: int) -> None:
    """It needs no secret, and its connections are never idle. They are closed, although answers are still unsent."""
    flood = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * requests
    settings = SETTINGS.model_copy(update={"max_connections": 16})
    async with serving(MemoryPublisher(), settings=settings) as here:
        address = ("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        deaf = [socket.socket() for _ in range(16)]
        for one in deaf:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(address)
            one.setblocking(False)  # noqa: FBT003 - the library's signature
            with suppress(BlockingIOError):
                one.send(flood)
        await asyncio.sleep(0.5)
        files = len(os.listdir(_OPEN_FILES))  # noqa: PTH208 - no disk is read
        holders = [sender(here, WHOLE) for _ in range(15)]
        opened = [await one.__aenter__() for one in holders]
        assert [await one.status() for one in opened] == [422] * 15
        assert _value(here, "ingress_connections") == 16
        assert _value(here, "ingress_connections_closed_total") == 15
        assert len(os.listdir(_OPEN_FILES)) == files + 15  # noqa: PTH208 - no disk is read
        for holder in holders:
            await holder.__aexit__(None, None, None)
        for one in deaf:
            one.close()


@pytest.mark.skipif(
    _SOMAXCONN.exists() and int(_SOMAXCONN.read_text()) < 1024, reason="this machine lets fewer connections wait"
)
async def test_a_thousand_connections_wait_while_the_process_is_busy() -> None:
    """The system accepts them meanwhile. With the default of the library it refuses or delays them from 129 on."""
    async with serving(MemoryPublisher(), settings=SETTINGS) as here:
        address = ("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        waiting = []
        try:
            for _ in range(600):
                waiting.append(socket.create_connection(address, timeout=0.5))  # noqa: PERF401 - busy on purpose
        finally:
            for one in waiting:
                one.close()
    assert len(waiting) == 600


@pytest.mark.parametrize(("soft", "hard", "connections"), [(300, 300, 44), (100, 100, 16), (300, 20_000, 4096)])
def test_a_small_limit_of_open_files_is_warned_of(soft: int, hard: int, connections: int) -> None:
    """The soft limit is raised as far as it helps; below, the ingress keeps to fewer connections, and says so."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from pipeline.webhooks.connections import connections_within\n"
        "print(connections_within(4096), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this machine allows fewer files")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *warnings, result = ran.stdout.splitlines()
    assert result == f"{connections} {min(hard, 4096 + 256)}"
    assert ["open_files_limit" in line for line in warnings] == ([True] if hard < 4352 else [])


@pytest.mark.parametrize("reads", [False, True])
async def test_a_sender_that_reads_no_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch, *, reads: bool) -> None:
    """It could wait for ever, with all the requests that it has in line. One that is only slow goes on."""
    monkeypatch.setattr(connections, "_UNREAD_SECONDS", 0.5)
    unsent = bytearray()
    async with serving(MemoryPublisher(), settings=SETTINGS) as here:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536 if reads else 4096)
            deaf.connect(("127.0.0.1", int(here.server.url.rpartition(":")[2])))
            deaf.setblocking(False)  # noqa: FBT003 - the library's signature
            await asyncio.sleep(0.1)
            assert _value(here, "ingress_connections") == 1
            ends = asyncio.get_running_loop().time() + (2 if reads else 60)
            while asyncio.get_running_loop().time() < ends and _value(here, "ingress_connections") != 0:
                unsent += b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * (0 if unsent else 100)
                with suppress(OSError):
                    del unsent[: deaf.send(unsent)]
                for _ in range(100 if reads else 0):
                    with suppress(OSError):
                        deaf.recv(1 << 16)
                await asyncio.sleep(0.01)
            assert _value(here, "ingress_connections") == int(reads)


@pytest.mark.parametrize("first", [b"", WHOLE], ids=["first", "second"])
async def test_a_head_without_end_is_refused_soon(first: bytes) -> None:
    """With 128 headers of 8 KiB each, every connection of an attacker would hold two megabytes."""
    async with serving(MemoryPublisher(), settings=SETTINGS) as here, sender(here, first + HEAD) as one:
        sent = 0
        for number in range(127):
            header = b"X-%d: %s\r\n" % (number, b"a" * 8000)
            one.writer.write(header)
            sent += len(header)
            await asyncio.sleep(0.005)
            if one.reader.at_eof() or here.metrics.registry.get_sample_value("pipeline_ingress_connections") == 0:
                break
        assert sent < 1 << 17
        assert await one.statuses() == ([422, 400] if first else [400])


async def test_a_large_head_behind_a_large_body_is_read() -> None:
    """Only bytes of the head itself count."""
    body = b"{" + b" " * 300_000 + b"}"
    large = HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 8000) for number in range(6))
    async with serving(MemoryPublisher(), settings=SETTINGS) as here, sender(here) as one:
        for _ in range(2):
            for piece in (large, b"Content-Length: %d\r\n\r\n" % len(body), body):
                for at in range(0, len(piece), 40_000):
                    one.writer.write(piece[at : at + 40_000])
                    await asyncio.sleep(0.005)
            assert await one.status() == 422


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_large_bodies_behind_one_another_are_all_read(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The library stops reading while its buffer is full; it has to go on afterwards."""
    body = b'{"filler":"%s"}' % (b"x" * 500_000)
    large = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunk = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk

    async def run() -> list[int]:
        async with serving(MemoryPublisher(), settings=SETTINGS) as here, sender(here) as one:
            one.writer.write((large + WHOLE + chunked + WHOLE) * 2)
            return [await one.status() for _ in range(8)]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(run()) == [422] * 8


async def test_a_body_of_tiny_chunks_is_refused_soon() -> None:
    """524,288 chunks of a byte each are 3 MB to parse; the sender is refused after a small part of them."""
    publisher = MemoryPublisher()
    chunks = b"1\r\n \r\n" * 4096
    async with serving(publisher, settings=SETTINGS) as here:
        async with sender(here, HEAD + b"Transfer-Encoding: chunked\r\n\r\n") as one:
            sent = 0
            for _ in range(128):
                one.writer.write(chunks)
                sent += len(chunks)
                await asyncio.sleep(0.01)
                if one.reader.at_eof() or one.writer.is_closing():
                    break
                if here.ingress.limits.requests.unused and sent > len(chunks):
                    break
            assert await one.statuses() == [400]
        assert sent < 1 << 19
        found = _value(here, "ingress_requests_total", integration="acme", status="400", reason="body_incomplete")
        assert found == 1
    assert publisher.published == []


@pytest.mark.parametrize("size", [3, 10, 100])
async def test_a_body_of_small_chunks_is_read(size: int) -> None:
    """A sender that writes its JSON piece by piece is no attacker."""
    body = b"{" + b" " * 100_000 + b"}"
    chunks = [b"%x\r\n%s\r\n" % (len(one), one) for one in (body[at : at + size] for at in range(0, len(body), size))]
    async with (
        serving(MemoryPublisher(), settings=SETTINGS) as here,
        sender(here, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"".join(chunks) + b"0\r\n\r\n") as one,
    ):
        assert await one.status() == 422


async def test_no_log_line_repeats_what_a_broken_body_held() -> None:
    """This holds for our own lines and for those of the library."""
    with capture_logs() as logs:
        async with (
            serving(MemoryPublisher(), settings=SETTINGS) as here,
            sender(here, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"4111111111111111zz\r\n", pause=0.05) as one,
        ):
            assert await one.statuses() == [400]
    assert "4111" not in repr(logs)
