"""Attacks by senders without any secret: every good request is answered while they last."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import SecretStr

from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.sources import SchemeVerifier
from pipeline.webhooks.testing import SECRET, Serving, ecs_webhook, serving
from pipeline.webhooks.verification import HmacSpec, Secret, scheme_of
from pipeline.webhooks.webhook import Webhook

ATTACKERS = 560
GOOD = 281
SIGNED = replace(
    ecs_webhook(),
    verifier=SchemeVerifier(scheme_of(HmacSpec(scheme="hmac", header="X-Signature"), [Secret("k", SecretStr(SECRET))])),
)
BODY = b'{"data": {"type": "x"}}'
"""Authentic, and not valid: its answer is 422."""
HEAD = b"POST /webhooks/ecs/acme HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 23\r\n"
SIGNATURE = b"X-Signature: " + hmac.digest(SECRET.encode(), BODY, "sha256").hex().encode() + b"\r\n"
SECRET_HEADER = b"X-Webhook-Secret: " + SECRET.encode() + b"\r\n"


def _port(here: Serving) -> int:
    return int(here.server.url.rpartition(":")[2])


@asynccontextmanager
async def _attackers(here: Serving, head: bytes) -> AsyncIterator[None]:
    """Hold connections that send a head and one byte of a body, each again as soon as it is answered."""
    opened = asyncio.Semaphore(0)

    async def attack() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", _port(here))
            try:
                writer.write(head + b"\r\n{")
                opened.release()
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(attack()) for _ in range(ATTACKERS)]
    try:
        for _ in tasks:
            await opened.acquire()
        # a request may wait for its body for 0.2 s before it gives way; a fast machine opens all of these sooner
        await asyncio.sleep(0.3)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _whole(here: Serving, head: bytes) -> int:
    """Return the status of a request that is sent in one piece."""
    return await _split(here, head, split=0)


async def _split(here: Serving, head: bytes, split: int = 1) -> int:
    """Return the status of a request whose body comes a moment after its head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", _port(here))
    try:
        writer.write(head + b"\r\n" + (b"" if split else BODY))
        if split:
            await asyncio.sleep(0.01)
            writer.write(BODY)
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("send", [_whole, _split], ids=["one piece", "two pieces"])
@pytest.mark.parametrize(
    ("webhook", "attack", "good"),
    [
        (ecs_webhook(), b"", SECRET_HEADER),
        (SIGNED, b"X-Signature: " + b"0" * 64 + b"\r\n", SIGNATURE),
    ],
    ids=["no secret", "forged signature"],
)
async def test_slow_bodies_without_a_secret_cost_no_good_request(
    webhook: Webhook, attack: bytes, good: bytes, send: Callable[[Serving, bytes], object]
) -> None:
    """560 connections send a head and one byte of a body, from the address of the sender itself."""
    async with serving(MemoryPublisher(), webhooks=[webhook], settings=IngressSettings(port=0)) as here:
        assert await _whole(here, HEAD + good) == 422, "its address is known from now on"
        async with _attackers(here, HEAD + attack):
            gate = asyncio.Semaphore(8)

            async def one() -> object:
                async with gate:
                    return await send(here, HEAD + good)  # type: ignore[misc]

            answers = Counter(await asyncio.gather(*(one() for _ in range(GOOD))))
    assert answers == {422: GOOD}
