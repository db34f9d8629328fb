"""W3C trace context: enough to carry a trace through webhooks, records and requests, without a tracing library.

Source: https://www.w3.org/TR/trace-context/ (``traceparent`` only; ``tracestate`` is not carried on).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from structlog.contextvars import bound_contextvars

from pipeline.contracts import INTEGRATION_HEADER, Record, first_values, parse_job_key

_FORM: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_LONGEST: Final = 512
_SAMPLED: Final = 1
_POOL_BYTES: Final = 4096

NewHex = Callable[[int], str]
"""Returns so many random bytes in hex."""


class RandomHex:
    """Gives random bytes in hex; it asks the system for 4 KiB at once, which costs as much as a single trace id.

    The bytes are as random as those of :mod:`secrets`, and no byte is given twice: a forked child drops what it
    inherits. They name traces, so they may lie in memory before they are used. For one thread.
    """

    def __init__(self) -> None:
        self._digits = ""
        self._next = 0
        os.register_at_fork(after_in_child=self._drop)

    def __call__(self, number: int) -> str:
        """Return so many random bytes in hex."""
        begin, end = self._next, self._next + 2 * number
        if end > len(self._digits):
            self._digits = os.urandom(max(_POOL_BYTES, number)).hex()
            begin, end = 0, 2 * number
        self._next = end
        return self._digits[begin:end]

    def _drop(self) -> None:
        self._digits, self._next = "", 0


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The position of a piece of work in a trace.

    Attributes:
        trace_id: 32 hex digits, equal through the whole flow of a job.
        span_id: 16 hex digits of this piece of work.
        sampled: Whether someone upstream records the trace; passed on as it came.
    """

    trace_id: str
    span_id: str
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    def child(self, new_hex: NewHex = secrets.token_hex) -> TraceContext:
        """Return a context of a piece of work within this one."""
        return replace(self, span_id=new_hex(8))


def parse_traceparent(header: str | None) -> TraceContext | None:
    """Return what the header says, or None where it is missing or malformed: then a new trace begins.

    Later versions are read as far as version 00 goes, as the recommendation demands.
    """
    if header is None or len(header) > _LONGEST:
        return None
    match = _FORM.fullmatch(header.strip(" \t"))
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["more"]):
        return None
    if not int(match["trace"], 16) or not int(match["span"], 16):
        return None
    return TraceContext(match["trace"], match["span"], bool(int(match["flags"], 16) & _SAMPLED))


def continue_trace(header: str | None, new_hex: NewHex = secrets.token_hex) -> TraceContext:
    """Return a child of the trace in the header, or the beginning of a new one."""
    parent = parse_traceparent(header)
    return parent.child(new_hex) if parent else TraceContext(new_hex(16), new_hex(8))


def record_fields(record: Record) -> dict[str, str]:
    """Return what each log line about a record carries: trace id, integration and job, if the record says them."""
    headers = first_values(record.headers)
    fields: dict[str, str] = {}
    trace = parse_traceparent(headers.get("traceparent"))
    if trace is not None:
        fields["trace_id"] = trace.trace_id
    if INTEGRATION_HEADER in headers:
        fields["integration"] = headers[INTEGRATION_HEADER]
    job = parse_job_key(record.key)
    if job is not None:
        fields["integration"], fields["job_guid"] = job[0], str(job[1])
    return fields


@contextmanager
def trace_in_logs(traceparent: str | None) -> Iterator[None]:
    """Add the trace id to every log line that is written inside the block, if there is one."""
    trace = parse_traceparent(traceparent)
    with bound_contextvars(**({"trace_id": trace.trace_id} if trace else {})):
        yield


@contextmanager
def bound_trace(context: TraceContext) -> Iterator[TraceContext]:
    """Put ``trace_id`` and ``span_id`` on every log line of this task until the block ends."""
    with bound_contextvars(trace_id=context.trace_id, span_id=context.span_id):
        yield context
