"""Faults that the sandbox simulates on request. Each fault changes some answers of one kind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

Target = Literal["input", "result", "callback", "token", "cards"]
"""Where faults occur: GET of input files, PUT of result files, ECS's callback, ECS's token endpoint, the card API."""

Kind = Literal["status", "delay", "rate", "stall", "cut", "change", "lost", "expired", "whole", "wrong_etag", "answer"]

Answer = Literal["html", "empty", "errors", "other_job", "other_type", "unknown_status", "not_json"]
"""Wrong 2xx answers to a callback."""

ENDLESS: Final = 0

_TARGETS: Final[Mapping[Kind, frozenset[Target]]] = {
    "status": frozenset({"input", "result", "callback", "token", "cards"}),
    "delay": frozenset({"input", "result", "callback", "token", "cards"}),
    "rate": frozenset({"input"}),
    "stall": frozenset({"input"}),
    "cut": frozenset({"input", "result"}),
    "change": frozenset({"input"}),
    "lost": frozenset({"input", "result", "callback", "token", "cards"}),
    "expired": frozenset({"input", "result"}),
    "whole": frozenset({"input"}),
    "wrong_etag": frozenset({"result"}),
    "answer": frozenset({"callback"}),
}


class Fault(BaseModel):
    """One fault. An answer can have one fault of each kind; of several faults of one kind, the oldest comes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    kind: Kind
    job: UUID | None = Field(default=None, description="Only for this job; default: any job")
    times: int = Field(default=1, ge=0, description="Number of answers; 0: until it is removed")
    after_bytes: int = Field(default=0, ge=0, description="cut, stall, change: after this many bytes of the body")
    seconds: float = Field(default=0.0, ge=0, description="delay, stall: how long")
    bytes_per_second: int = Field(default=0, ge=0, description="rate: speed of the body")
    status: int = Field(default=500, ge=200, le=599, description="status: the HTTP status of the answer")
    code: str | None = Field(default=None, description="status: the S3 error code; default: the one for the status")
    retry_after: str | None = Field(default=None, description="status: value of the Retry-After header")
    location: str | None = Field(default=None, description="status: value of the Location header of a redirect")
    error_status: str | int = Field(default="500", description="answer errors: value of errors[].status")
    answer: Answer | None = Field(default=None, description="answer: contents of the 2xx answer")

    @model_validator(mode="after")
    def _fits(self) -> Fault:
        if self.target not in _TARGETS[self.kind]:
            raise ValueError(f"{self.kind} is for {', '.join(sorted(_TARGETS[self.kind]))}, not for {self.target}")
        if self.kind == "rate" and not self.bytes_per_second:
            raise ValueError("rate needs bytes_per_second")
        if self.kind == "answer" and self.answer is None:
            raise ValueError("answer needs answer")
        return self


class Faults:
    """The pending faults."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Add a fault; it applies from the next answer on."""
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Remove all faults."""
        self._waiting.clear()

    def waiting(self) -> list[dict[str, object]]:
        """Return the pending faults. ``left`` is the number of answers still to change (0: until removed)."""
        return [fault.model_dump(mode="json", exclude_defaults=True) | {"left": left} for fault, left in self._waiting]

    def take(self, target: Target, job: UUID | None = None) -> dict[Kind, Fault]:
        """Return the faults for this answer by kind, and reduce the number of answers that each has left."""
        taken: dict[Kind, Fault] = {}
        kept: list[tuple[Fault, int]] = []
        for fault, left in self._waiting:
            hit = fault.target == target and fault.job in {None, job} and fault.kind not in taken
            if hit:
                taken[fault.kind] = fault
            if not hit or left == ENDLESS:
                kept.append((fault, left))
            elif left > 1:
                kept.append((fault, left - 1))
        self._waiting = kept
        return taken


async def delay(faults: Mapping[Kind, Fault]) -> None:
    """Wait if one of the faults is a delay."""
    if "delay" in faults:
        await asyncio.sleep(faults["delay"].seconds)


def drop(request: web.Request) -> web.Response:
    """Close the connection at once, without an answer. The handler must return the result, which is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
