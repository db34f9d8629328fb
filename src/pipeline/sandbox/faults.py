"""The faults that the sandbox is asked for: each changes some answers of one kind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

Target = Literal["input", "result", "callback", "token", "cards"]
"""The GET of an input file, the PUT of a result file, ECS's callback, its token endpoint, the card API."""

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
    """One misbehaviour. Faults of different kinds add up in one answer; of equal kinds the oldest goes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    kind: Kind
    job: UUID | None = Field(default=None, description="Only for this job; default: whichever comes")
    times: int = Field(default=1, ge=0, description="For so many answers; 0: until it is removed")
    after_bytes: int = Field(default=0, ge=0, description="cut, stall, change: after so many bytes of this body")
    seconds: float = Field(default=0.0, ge=0, description="delay, stall: how long")
    bytes_per_second: int = Field(default=0, ge=0, description="rate: how fast the body goes out")
    status: int = Field(default=500, ge=200, le=599, description="status: the HTTP status of the answer")
    code: str | None = Field(default=None, description="status: the S3 error code; default fits the status")
    retry_after: str | None = Field(default=None, description="status: value of the Retry-After header")
    location: str | None = Field(default=None, description="status: value of the Location header of a redirect")
    error_status: str | int = Field(default="500", description="answer errors: value of errors[].status")
    answer: Answer | None = Field(default=None, description="answer: what the 2xx answer holds")

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
    """The faults that are still to happen."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Let it happen from the next answer on."""
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Behave again."""
        self._waiting.clear()

    def waiting(self) -> list[dict[str, object]]:
        """Return what is still to happen; ``left`` is how often (0: until removed)."""
        return [fault.model_dump(mode="json", exclude_defaults=True) | {"left": left} for fault, left in self._waiting]

    def take(self, target: Target, job: UUID | None = None) -> dict[Kind, Fault]:
        """Return the faults of this answer by kind, and count them as happened."""
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
    """Wait, where the faults say so."""
    if "delay" in faults:
        await asyncio.sleep(faults["delay"].seconds)


def drop(request: web.Request) -> web.Response:
    """Close the connection at once, without an answer. Return the result from the handler: nothing of it is sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
