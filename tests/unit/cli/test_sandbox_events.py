"""`pipeline sandbox send-events`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from support.command_line import Run

from pipeline.cli import sandbox_events as command
from pipeline.sandbox.weavr import EXPECTED, Entry, Event, Pace, Sender, Totals, legacy_signature, read_ledger
from pipeline.settings import load_settings

URL = "http://127.0.0.1:9/webhooks/weavr/acme"
ARGUMENTS = ("sandbox", "send-events", "--url", URL, "--key-file", "key")


class Weavr:
    """Replaces sending over HTTP: gives the right answers, unless the test wants others.

    Attributes:
        answer: Status by event.
        events: What was sent, retries included.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Event], int] = as_demanded
        self.events: list[Event] = []
        self.asked: list[tuple[str, Pace]] = []

    async def send(
        self,
        url: str,
        events: Iterable[Event],
        pace: Pace,
        record: Callable[[Entry], None],
        *,
        watch: Callable[[Totals], None] | None = None,
    ) -> Totals:
        self.asked.append((url, pace))

        async def post(event: Event) -> int:
            self.events.append(event)
            return self.answer(event)

        totals = await Sender(post, pace, record, clock=lambda: 0.0, sleep=lambda _: asyncio.sleep(0)).send(events)
        if watch:
            watch(totals)
        return totals


def as_demanded(event: Event) -> int:
    expected = EXPECTED[event.broken] if event.broken else "accepted"
    return {"accepted": 204, "quarantined": 204, "refused": 401, "unverified": 503}[expected]


@pytest.fixture
def weavr(empty: Path, monkeypatch: pytest.MonkeyPatch) -> Weavr:
    """A folder with two keys, and nothing that listens."""
    for name in ("key", "next"):
        (empty / name).write_text(f"the-{name}\n")
    made = Weavr()
    monkeypatch.setattr(command, "send_events", made.send)
    return made


def test_events_are_sent_and_summed_up(weavr: Weavr, run: Run) -> None:
    result = run(*ARGUMENTS, "--count", "300")
    assert result.exit_code == 0, result.output
    assert len(weavr.events) == 300
    assert weavr.asked == [(URL, Pace(16, None, 1000.0))]
    lines = result.stdout.splitlines()
    assert lines[:2] == ["events    300", "sent      300 (0 repeats)"]
    assert lines[3:] == [
        "accepted  300 (0 of them for quarantine)",
        "refused   0",
        "given up  0",
        "answer\trequests",
        "204\t300",
    ]


def test_options_decide_what_is_sent(weavr: Weavr, run: Run) -> None:
    """Shares without a value have a usual one."""
    result = run(
        *ARGUMENTS,
        *("--count", "700", "--mix", "managed_cards/*=3, login", "--rate", "5000", "--connections", "3"),
        *("--repeats", "0.1", "--out-of-order", "--new-fields", "--broken", "--compress-retries", "10", "--seed", "4"),
        *("--rotate-to", "next", "--json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["events"], found["ok"], found["broken"]) == (
        700,
        True,
        dict.fromkeys(sorted(EXPECTED), 1),
    )
    assert found["repeats"] > 20
    assert (found["refused"], found["given_up"], found["quarantined"]) == (3, 2, 2)
    assert weavr.asked == [(URL, Pace(3, 5000.0, 10.0))]
    assert any(event.late for event in weavr.events)
    assert any(b"sandboxAdded0" in event.body for event in weavr.events)


def test_the_second_half_is_signed_by_the_next_key(weavr: Weavr, run: Run) -> None:
    """Seen by what the deprecated signature is, which covers the timestamp alone."""
    run(*ARGUMENTS, "--count", "10", "--mix", "login", "--rotate-to", "next")
    for event in weavr.events:
        headers = dict(event.headers)
        key = b"the-next" if event.index >= 5 else b"the-key"
        assert headers["signature"] == legacy_signature(key, headers["published-timestamp"])


def test_the_ledger_has_a_line_for_each_event(weavr: Weavr, run: Run) -> None:
    """The lines hold neither body nor signature."""
    run(*ARGUMENTS, "--count", "50", "--broken", "0.2", "--ledger", "ledger.jsonl")
    entries = list(read_ledger(Path("ledger.jsonl")))
    assert sorted(entry.index for entry in entries) == list(range(50))
    text = Path("ledger.jsonl").read_text("utf-8")
    assert not any(dict(event.headers).get("signature-v2", "?") in text for event in weavr.events)


def test_an_answer_that_is_not_as_it_must_be_is_exit_1(weavr: Weavr, run: Run) -> None:
    """The command names the first wrong answers, up to a limit."""
    weavr.answer = lambda event: 401 if event.index < 30 else 204
    result = run(*ARGUMENTS, "--count", "60")
    assert result.exit_code == 1
    assert "WRONG: event " in result.stdout
    assert result.stdout.endswith("and 10 more\n")
    assert json.loads(run(*ARGUMENTS, "--count", "60", "--json").stdout)["wrong"] == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--key-file", "key"), "url_missing: give --url, such as http://127.0.0.1:8080/webhooks/weavr/acme"),
        (("--url", "ftp://h/webhooks/weavr/acme", "--key-file", "key"), "url_invalid: --url must begin with"),
        (("--url", f"{URL}?a=1", "--key-file", "key"), "url_invalid: --url must begin with"),
        (("--url", "http://h/hook", "--key-file", "key"), "url_invalid: --url names no integration"),
        (("--url", URL), "key_missing: give --key-file"),
        (("--url", URL, "--key-file", "none"), "key_unreadable: none cannot be read (No such file or directory)"),
        (("--url", URL, "--key-file", "nothing"), "key_unreadable: nothing is empty"),
        (("--url", URL, "--key-file", "key", "--rotate-to", "none"), "key_unreadable: none cannot be read"),
        (("--url", URL, "--key-file", "key", "--mix", "card/*=1"), "mix_invalid: --mix: 'card/*' matches none"),
        (("--url", URL, "--key-file", "key", "--mix", "login=x"), "mix_invalid: --mix: 'login=x' is not PATH=WEIGHT"),
        (("--url", URL, "--key-file", "key", "--ledger", "no/l"), "ledger_unwritable: no/l cannot be written"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_sent(
    weavr: Weavr, run: Run, options: tuple[str, ...], message: str
) -> None:
    Path("nothing").touch()
    result = run("sandbox", "send-events", *options)
    assert (result.exit_code, weavr.events) == (2, [])
    assert result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "option", [("--count", "0"), ("--broken", "1.5"), ("--rate", "0"), ("--compress-retries", "0")]
)
def test_numbers_out_of_range_are_refused(weavr: Weavr, run: Run, option: tuple[str, str]) -> None:
    result = run(*ARGUMENTS, *option)
    assert (result.exit_code, weavr.events) == (2, [])


def test_settings_are_written_that_load(empty: Path, run: Run) -> None:
    """Keys in files of their own, for their owner alone."""
    result = run("sandbox", "send-events", "--write-settings", "try", "--integration", "me")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "settings       try/pipeline.toml"
    settings = load_settings(empty / "try" / "pipeline.toml", {}).weavr["me"]
    keys = [secret.value.get_secret_value() for secret in settings.webhook_secrets()]
    files = [empty / "try" / "secrets" / name for name in ("me-weavr-key", "me-weavr-next-key")]
    assert [file.read_text() for file in files] == keys
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert [one.path for one in settings.unsigned_paths] == ["/bulk_process_end/watch"]


def test_settings_are_not_overwritten_nor_written_under_a_name_that_is_none(empty: Path, run: Run) -> None:
    (empty / "try").mkdir()
    (empty / "try" / "pipeline.toml").write_text("mine")
    result = run("sandbox", "send-events", "--write-settings", "try")
    assert (result.exit_code, (empty / "try" / "pipeline.toml").read_text()) == (2, "mine")
    result = run("sandbox", "send-events", "--write-settings", "other", "--integration", "A B")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: integration_name: ")


def test_on_a_terminal_there_is_a_bar(weavr: Weavr, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, so that stdout stays what it is."""
    monkeypatch.setattr(command, "_at_terminal", lambda: True)
    result = run(*ARGUMENTS, "--count", "20", "--json")
    assert json.loads(result.stdout)["events"] == len(weavr.events) == 20
    assert "events" in result.stderr


def test_help_shows_that_a_share_may_be_left_out_and_what_it_is_then(run: Run) -> None:
    help_text = " ".join(run("sandbox", "send-events", "--help").stdout.split())
    for option, usual in (("repeats", "0.05"), ("out-of-order", "0.05"), ("new-fields", "0.1"), ("broken", "0.01")):
        assert re.search(
            rf"--{option} \[SHARE\] [^\[]+ If you leave out SHARE: {re.escape(usual)}\. \[default: 0; ", help_text
        )
