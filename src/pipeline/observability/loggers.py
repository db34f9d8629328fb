"""Loggers for code that also runs in processes of other teams."""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog
from structlog.typing import Processor

from pipeline.observability.masking import Redaction

_PROCESSORS: Final[list[Processor]] = [
    structlog.stdlib.filter_by_level,
    structlog.contextvars.merge_contextvars,
    Redaction(),
    structlog.processors.KeyValueRenderer(key_order=["event"]),
]


class _Logger:
    """Chooses the destination of a line when the line is written, since the process may configure structlog later."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain: Any = structlog.wrap_logger(
            logging.getLogger(name), processors=_PROCESSORS, wrapper_class=structlog.stdlib.BoundLogger
        )

    def __getattr__(self, method: str) -> Any:
        """Return a method of structlog's logger, or of the standard library's."""
        return getattr(structlog.get_logger(self._name) if structlog.is_configured() else self._plain, method)


def get_logger(name: str) -> Any:
    """Return a logger that uses the process's own configuration. It configures nothing and never writes to stdout.

    If the process configured structlog, lines go there, in its format. Otherwise they go to the standard library's
    ``logging``, masked, as ``event='...' name=value``. Without any configuration, Python prints warnings and errors on
    stderr.
    """
    return _Logger(name)
