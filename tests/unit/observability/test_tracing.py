"""W3C traceparent."""

from __future__ import annotations

import pytest
import structlog

from pipeline.observability import TraceContext, bound_trace, continue_trace, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (HEADER, True),
        (f" {HEADER}\t", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
    ],
)
def test_valid_headers(header: str, sampled: bool) -> None:  # noqa: FBT001 - a parametrised expectation
    """Known and later versions are read."""
    assert parse_traceparent(header) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 600}",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_invalid_headers_begin_a_new_trace(header: str | None) -> None:
    """A malformed header is ignored, as the recommendation says."""
    assert parse_traceparent(header) is None
    fresh = continue_trace(header, lambda size: "a" * 2 * size)
    assert fresh.traceparent == f"00-{'a' * 32}-{'a' * 16}-01"


def test_a_child_keeps_trace_and_flag() -> None:
    """The span is new, the rest is passed on."""
    child = continue_trace(f"00-{TRACE}-{SPAN}-00", lambda size: "c" * 2 * size)
    assert child.traceparent == f"00-{TRACE}-{'c' * 16}-00"


def test_random_ids_are_valid() -> None:
    """What we send can be read by others."""
    context = continue_trace(None)
    assert parse_traceparent(context.traceparent) == context
    assert context.child() != context


def test_the_trace_is_bound_to_log_lines() -> None:
    """Inside the block every line carries the ids, afterwards none."""
    with bound_trace(TraceContext(TRACE, SPAN)) as context:
        assert context.trace_id == TRACE
        assert structlog.contextvars.get_contextvars() == {"trace_id": TRACE, "span_id": SPAN}
    assert structlog.contextvars.get_contextvars() == {}
