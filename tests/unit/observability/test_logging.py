"""Log lines as they arrive on the stream."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NoReturn

import pytest
import structlog
from pydantic import SecretStr

from pipeline.observability import LoggingSettings, Redaction, configure_logging
from pipeline.observability.logging import FewRepeats

CARD = "4111111111111111"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("pipeline")
    before = root.handlers[:], root.level, own.level, sys.excepthook, threading.excepthook
    yield
    root.handlers[:], root_level, own_level, sys.excepthook, threading.excepthook = before
    root.setLevel(root_level)
    own.setLevel(own_level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    """A buffer that is taken for a terminal."""

    def isatty(self) -> bool:
        return True


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    style: Literal["auto", "json", "console"] = "auto",
    stream: io.StringIO | None = None,
) -> io.StringIO:
    """Configure onto a buffer."""
    stream = stream or io.StringIO()
    configure_logging(LoggingSettings(level=level, format=style), Redaction([SecretStr("opaque-secret")]), stream)
    return stream


def fail_with_a_card() -> NoReturn:
    """Put a card where none may be."""
    raise ValueError(CARD)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Parse what was written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_own_lines_are_json_with_level_logger_and_time() -> None:
    """One object per line."""
    stream = configure()
    structlog.get_logger("pipeline.package").info("did_it", count=3)
    (line,) = lines(stream)
    assert line["timestamp"].endswith("Z")
    assert line | {"timestamp": ""} == {
        "event": "did_it",
        "count": 3,
        "level": "info",
        "logger": "pipeline.package",
        "timestamp": "",
    }


def test_own_level_counts_for_own_lines() -> None:
    """Debug shows only when asked for."""
    stream = configure("info")
    structlog.get_logger("pipeline.package").debug("quiet")
    assert lines(stream) == []
    stream = configure("debug")
    structlog.get_logger("pipeline.package").debug("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize("name", ["aiohttp.server", "aiokafka.client", "obstore"])
def test_libraries_never_log_debug(name: str) -> None:
    """Their debug lines hold raw payloads."""
    stream = configure("debug")
    logging.getLogger(name).debug("payload %s", CARD)
    logging.getLogger(name).info("state %s opaque-secret", CARD)
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("state [digits] [masked]", name, "info")


def test_tracebacks_are_masked_and_hold_no_locals() -> None:
    """Neither the message of an exception, nor of its cause, nor a variable of its frames gets out."""
    stream = configure()

    def look_up() -> None:
        local = "planted-local-value"
        raise KeyError(f"https://h/p?sig={local}")

    def fail() -> None:
        try:
            look_up()
        except KeyError as error:
            raise ValueError(f"card {CARD}") from error

    try:
        fail()
    except ValueError:
        structlog.get_logger("pipeline.package").exception("failed", attempt=2)
    (line,) = lines(stream)
    assert "ValueError: card [digits]" in line["exception"]
    assert "https://h/p?…" in line["exception"]
    assert CARD not in stream.getvalue()
    assert "sig=planted" not in stream.getvalue()


def test_library_exceptions_take_the_same_way() -> None:
    """Aiohttp logs unhandled errors of handlers with a traceback."""
    stream = configure()
    try:
        fail_with_a_card()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request")
    (line,) = lines(stream)
    assert "ValueError: [digits]" in line["exception"]
    assert CARD not in stream.getvalue()


def test_warnings_are_logged() -> None:
    """A library's deprecation does not bypass the chain."""
    stream = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"deprecated {CARD}", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert CARD not in stream.getvalue()


def test_on_a_terminal_lines_are_text_for_people_unless_json_is_demanded() -> None:
    """The format ``auto`` decides by the stream."""
    stream = configure(stream=Terminal())
    structlog.get_logger("pipeline.package").info("did_it", count=3)
    assert re.search(r"\[info +\] did_it +\[pipeline\.package\] count=3\n$", stream.getvalue())
    stream = configure(style="json", stream=Terminal())
    structlog.get_logger("pipeline.package").info("did_it", count=3)
    assert lines(stream)[0]["count"] == 3


def test_people_see_warnings_of_libraries_only_unless_they_ask_for_more() -> None:
    """The Kafka client alone says some forty things while a process starts."""
    stream = configure(stream=Terminal())
    for logger in ("aiokafka", "pipeline.package"):
        logging.getLogger(logger).info("started")
        logging.getLogger(logger).warning("slow")
    assert [re.sub(r".*] (\w+) +\[(\w+).*", r"\1 \2", line) for line in stream.getvalue().splitlines()] == [
        "slow aiokafka",
        "started pipeline",
        "slow pipeline",
    ]
    stream = configure("debug", stream=Terminal())
    logging.getLogger("aiokafka").info("started")
    assert "started" in stream.getvalue()


@pytest.mark.parametrize("style", ["auto", "console"])
def test_console_lines_are_masked_too(style: Literal["auto", "console"]) -> None:
    """The form for people passes the same net."""
    stream = configure(style=style, stream=Terminal())
    try:
        fail_with_a_card()
    except ValueError:
        structlog.get_logger("pipeline.package").exception("failed", card="100001", url="https://h/p?q=1")
    text = stream.getvalue()
    assert "card=[masked]" in text
    assert "url=https://h/p?…" in text
    assert "ValueError: [digits]" in text
    assert CARD not in text


@pytest.mark.parametrize("style", ["json", "console"])
def test_each_format_masks_secrets_and_cards_of_own_lines_and_of_libraries(style: Literal["json", "console"]) -> None:
    """Both renderers get the same masked event."""
    stream = configure(style=style, stream=Terminal())
    structlog.get_logger("pipeline.package").info(
        "got", note=f"opaque-secret {CARD}", nested={"pin": "1234", "n": [CARD]}
    )
    structlog.get_logger("pipeline.package").info(f"a sentence with opaque-secret and {CARD}")
    logging.getLogger("aiokafka").warning("login with %s, card %s", "opaque-secret", CARD)
    text = stream.getvalue()
    assert len(text.splitlines()) == 3
    assert text.count("[masked]") == 4
    assert text.count("[digits]") == 4
    assert not any(secret in text for secret in ("opaque-secret", CARD, "1234"))


def test_what_a_sender_wrote_steers_no_terminal() -> None:
    """An escape sequence in a field is shown, not obeyed."""
    stream = configure(stream=Terminal())
    structlog.get_logger("pipeline.package").info("got", subject="\x1b[2Jcleared")
    assert "\x1b" not in stream.getvalue()
    assert "cleared" in stream.getvalue()


def test_bound_context_is_on_every_line() -> None:
    """Context variables reach own lines and those of libraries."""
    stream = configure()
    with structlog.contextvars.bound_contextvars(job="j", token="abc"):
        structlog.get_logger("pipeline.package").info("own")
        logging.getLogger("aiokafka").warning("theirs")
    assert [(line["job"], line["token"]) for line in lines(stream)] == [("j", "[masked]")] * 2


def test_the_last_words_of_a_process_are_masked() -> None:
    """An exception that nobody caught is logged, not printed by the interpreter."""
    stream = configure()
    error = ValueError(CARD)
    sys.excepthook(ValueError, error, None)
    (line,) = lines(stream)
    assert (line["event"], line["level"]) == ("process_crashed", "critical")
    assert CARD not in stream.getvalue()


def test_an_interrupt_is_left_to_the_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is no crash."""
    stream = configure()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert stream.getvalue() == ""
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_a_dying_thread_is_logged() -> None:
    """So is an exception that ends a worker thread."""
    stream = configure()

    def die() -> None:
        raise ValueError(CARD)

    thread = threading.Thread(target=die, name="worker")
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert (line["event"], line["thread"]) == ("thread_crashed", "worker")
    assert CARD not in stream.getvalue()
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError(), None, None)))
    assert lines(stream)[1]["thread"] is None


def test_a_library_that_repeats_itself_is_cut_short() -> None:
    """Without a broker the Kafka client logs the same thirty times a second: three lines a minute say as much."""
    now = 0.0
    few = FewRepeats(lambda: now)

    def said(name: str, node: int) -> str | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, "no way to node %s", (node,), None)
        return record.getMessage() if few.filter(record) else None

    assert [said("aiokafka", node) for node in range(5)] == [
        *(f"no way to node {node}" for node in range(3)),
        None,
        None,
    ]
    assert said("aiokafka.client", 0) == "no way to node 0"
    now = 60.0
    assert said("aiokafka", 9) == "no way to node 9 [2 like this were left out]"
    now = 120.0
    assert said("aiokafka", 9) == "no way to node 9"


def test_our_own_lines_are_never_left_out() -> None:
    """Each line is about another job."""
    stream = configure()
    for _ in range(10):
        structlog.get_logger("pipeline.package").warning("work_retried")
    assert len(lines(stream)) == 10


def test_messages_that_are_always_new_do_not_fill_the_memory() -> None:
    """What was said is forgotten when it becomes too much."""
    few = FewRepeats(lambda: 0.0)
    for number in range(2500):
        assert few.filter(logging.LogRecord("lib", logging.INFO, "", 0, f"number {number}", (), None))
    assert len(few._said) <= 1000
