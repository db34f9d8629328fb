"""Processors that put their card into their errors, in each way that may end a process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import pyarrow as pa

from pipeline.jobs.processors import Card, CardResult, JobContext


class Leak(Exception):
    """An unexpected error."""


class PanicException(BaseException):
    """An error like that of a Rust extension (pyo3), which is not an Exception."""


class Hidden(Exception):
    """Has a text that cannot be had."""

    def __str__(self) -> str:
        """End the process that asks."""
        raise SystemExit(self.args[0])

    __repr__ = __str__


LOUD: Final[Mapping[str, type[BaseException]]] = {
    "exception": Leak,
    "panic": PanicException,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "generator exit": GeneratorExit,
    "memory": MemoryError,
    "recursion": RecursionError,
    "cancelled": asyncio.CancelledError,
    "group": Leak,
    "chain": Leak,
    "hidden": Hidden,
}
"""Ways to raise, and the class that a developer of the processor must read about."""


def shout(way: str, secret: str) -> NoReturn:
    """Raise in one of the ways."""
    if way == "recursion":
        shout(way, secret)
    if way == "group":
        raise ExceptionGroup(secret, [Leak(secret), ValueError(secret)])
    if way == "chain":
        try:
            int(f"{secret}x")
        except ValueError as error:
            loud = Leak(secret)
            loud.add_note(secret)
            raise loud from error
    raise LOUD[way](secret)


class LoudByRow:
    """Shouts each card."""

    def __init__(self, way: str) -> None:
        self.way = way

    async def process(self, card: Card, _context: JobContext) -> CardResult:
        """Raise."""
        shout(self.way, f"{card.number} {dict(card.columns)}")


class LoudInTask:
    """Shouts each card in a task of its own."""

    def __init__(self, way: str) -> None:
        self.way = way

    async def process(self, card: Card, context: JobContext) -> CardResult:
        """Raise."""
        (result,) = await asyncio.gather(LoudByRow(self.way).process(card, context))
        return result


class LoudByBatch:
    """Shouts each batch, in its thread."""

    def __init__(self, way: str) -> None:
        self.way = way

    def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> Any:
        """Raise."""
        shout(self.way, repr(batch.to_pylist()))
