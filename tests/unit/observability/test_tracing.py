"""W3C traceparent."""

from __future__ import annotations

import os

import pytest
import structlog

from pipeline.observability import RandomHex, TraceContext, bound_trace, continue_trace, parse_traceparent

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
    """Other programs can read the ids that we send."""
    context = continue_trace(None)
    assert parse_traceparent(context.traceparent) == context
    assert context.child() != context


def test_the_trace_is_bound_to_log_lines() -> None:
    """Inside the block every line carries the ids, afterwards none."""
    with bound_trace(TraceContext(TRACE, SPAN)) as context:
        assert context.trace_id == TRACE
        assert structlog.contextvars.get_contextvars() == {"trace_id": TRACE, "span_id": SPAN}
    assert structlog.contextvars.get_contextvars() == {}


def test_random_hex_has_the_wanted_length_and_gives_nothing_twice() -> None:
    """Across the ends of its pool, too, and for more than a pool holds."""
    new_hex = RandomHex()
    found = [new_hex(16) for _ in range(2000)]
    assert {len(one) for one in found} == {32}
    assert len(set(found)) == len(found)
    assert len(new_hex(10_000)) == 20_000
    assert bytes.fromhex(new_hex(8))


def test_a_forked_child_gives_other_random_bytes() -> None:
    """Otherwise two processes would use the same trace ids."""
    new_hex = RandomHex()
    new_hex(16)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, new_hex(16).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 64).decode() != new_hex(16)
    os.close(read)
    os.close(write)
