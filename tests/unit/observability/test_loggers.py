"""Loggers of code that runs in processes of other teams too."""

from __future__ import annotations

import io
import logging

import pytest
import structlog
from support.logging_state import logging_restored

from pipeline.observability import LoggingSettings, Redaction, configure_logging, get_logger

__all__ = ["logging_restored"]

log = get_logger("pipeline.kafka.test")


pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture(autouse=True)
def _unconfigured() -> None:
    """As in a process that configured nothing."""
    structlog.reset_defaults()


def test_a_process_without_structlog_gets_lines_from_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log.info("partition_lost", topic="fees", partition=3)
    assert [(one.name, one.levelname, one.getMessage()) for one in caplog.records] == [
        ("pipeline.kafka.test", "INFO", "event='partition_lost' topic='fees' partition=3")
    ]


def test_a_level_that_is_off_renders_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Costly:
        def __repr__(self) -> str:
            raise AssertionError

    with caplog.at_level(logging.WARNING):
        log.info("partition_lost", cause=Costly())
    assert caplog.records == []


def test_lines_are_masked_and_hold_what_is_bound(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.contextvars.bound_contextvars(trace_id="t-1"):
        log.bind(group="fraud").error("failed", subject="card 4111111111111111")
    (line,) = caplog.messages
    assert "4111" not in line
    assert "group='fraud'" in line
    assert "trace_id='t-1'" in line


def test_a_process_that_configures_structlog_later_gets_them_there() -> None:
    """Also by a logger that wrote before."""
    log.info("unseen")
    stream = io.StringIO()
    configure_logging(LoggingSettings(format="json"), Redaction(), stream)
    log.info("partition_lost", topic="fees")
    assert '"event": "partition_lost"' in stream.getvalue()
    assert "unseen" not in stream.getvalue()
