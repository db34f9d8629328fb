"""Logging is global: what one test configures must not reach the next."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Put handlers, levels and hooks back after the test."""
    root, own = logging.getLogger(), logging.getLogger("pipeline")
    before = root.handlers[:], root.level, own.level, sys.excepthook, threading.excepthook
    yield
    root.handlers[:], root_level, own_level, sys.excepthook, threading.excepthook = before
    root.setLevel(root_level)
    own.setLevel(own_level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
