"""Structured log lines on stderr. Lines of our code and of libraries pass one chain, which ends with redaction."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

from pipeline.observability.masking import Redaction
from pipeline.observability.settings import LoggingSettings

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

OWN_LOGGER: Final = "pipeline"

_REPEATS: Final = 3
"""How often a library may repeat a line in :data:`_REPEATS_SECONDS`. Without a broker, aiokafka logs 30 lines/s."""
_REPEATS_SECONDS: Final = 60.0
_REPEATS_KNOWN: Final = 1000
"""Maximum number of messages to remember, so that a library with ever new messages cannot fill the memory."""


def configure_logging(settings: LoggingSettings, redaction: Redaction, stream: TextIO | None = None) -> None:
    """Send all log lines of this process, including libraries, warnings and uncaught exceptions, to one stream.

    You may call it again: the last call wins. Tracebacks have no local variables. Libraries (aiohttp, aiokafka,
    obstore, those of processors) never log below info, at any level, because their debug lines contain raw payloads. In
    the console format they log only warnings, unless the level is debug. If a library repeats a message, three lines a
    minute are written; the next line then has the number of omitted ones.

    Args:
        settings: Level and format.
        redaction: Masks each line right before it is rendered. Keep it, to add further secrets later.
        stream: Default: stderr.
    """
    level = _LEVELS[settings.level]
    out = sys.stderr if stream is None else stream
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(redaction, console=console))
    handler.addFilter(FewRepeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING if console and level > logging.DEBUG else logging.INFO))
    logging.getLogger(OWN_LOGGER).setLevel(level)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers are module globals; a second configuration must reach them
    )
    _catch_uncaught()


class FewRepeats(logging.Filter):
    """Limits repeated lines (same logger, level and message template) of libraries. All our own lines pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the line."""
        if record.name.partition(".")[0] == OWN_LOGGER:
            return True
        what, now = (record.name, record.levelno, str(record.msg)), self._clock()
        since, count = self._said.get(what, (now, 0))
        if now - since >= _REPEATS_SECONDS:
            if count > _REPEATS:
                record.msg = f"{record.msg} [{count - _REPEATS} like this were left out]"
            since, count = now, 0
        if len(self._said) >= _REPEATS_KNOWN:
            self._said.clear()
        self._said[what] = (since, count + 1)
        return count < _REPEATS


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(redaction: Redaction, *, console: bool) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redaction,
            renderer,
        ],
    )


def _catch_uncaught() -> None:
    """Send uncaught exceptions of the process and its threads through the redaction too."""
    log = structlog.get_logger(OWN_LOGGER)

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("process_crashed", exc_info=(kind, error, trace))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        info: Any = (args.exc_type, args.exc_value, args.exc_traceback)
        log.critical("thread_crashed", thread=args.thread.name if args.thread else None, exc_info=info)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
