"""`pipeline events verify`: what was received is proved again, and what cannot be is counted apart."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.command_line import Run

from pipeline.cli.event_verification import EventVerifier, Result
from pipeline.cli.source_view import Configured, configured
from pipeline.contracts import Headers, Record
from pipeline.observability import TraceContext
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.settings import load_settings
from pipeline.webhooks.records import accepted
from pipeline.webhooks.sources import Verified, Verifier, WebhookRequest
from pipeline.webhooks.webhook import Received

AT = datetime(2026, 1, 22, 22, 43, 59, tzinfo=UTC)
AT_MS = b"%d" % round(AT.timestamp() * 1000)
KEYS = {"api-key": b"planted-api-key", "shop-key": b"planted-shop-key"}
LOGIN = (
    b'{"credential": {"id": "1234", "type": "root_users"}, "type": "LOGIN", "status": "VERIFIED", '
    b'"publishedTimestamp": "1769121839000"}'
)

MORE = """
[weavr.acme]
legacy_signature = true
secrets = [{ file = "api-key", not_before = 2026-01-01T00:00:00Z, not_after = 2026-02-01T00:00:00Z }]

[[weavr.acme.unsigned_paths]]
path = "/bulk_process_end/watch"
source_addresses = ["192.0.2.0/24"]

[webhooks.shop]
source = "hmac"
secrets = [{ file = "shop-key" }]
id = "header:X-Id"
"""


@pytest.fixture
def sources(home: Path) -> dict[str, Configured]:
    """One source of every sort, by its table."""
    with (home / "pipeline.toml").open("a") as file:
        file.write(MORE)
    for name, value in KEYS.items():
        (home / name).write_bytes(value)
        (home / name).chmod(0o600)
    return {one.table: one for one in configured(load_settings(home / "pipeline.toml", {}), secrets=True)}


def weavr_headers(body: bytes, call_ref: bytes = b"call-1") -> Headers:
    digest = hmac.digest(KEYS["api-key"], call_ref + body + AT_MS, hashlib.sha256)
    return (
        ("call-ref", call_ref),
        ("published-timestamp", AT_MS),
        ("signature-v2", base64.b64encode(digest)),
        ("user-agent", b"not kept"),
    )


def stored(one: Configured, path: str, headers: Headers, body: bytes, *, offset: int = 0) -> Record:
    """Return the record that the ingress makes of an authentic request."""
    verifier = one.webhook.verifier
    request = WebhookRequest.received(path, headers, body, "192.0.2.7")
    verified = verifier.verify(request, AT)
    kept = tuple(header for header in headers if header[0] in verifier.stored_headers)
    request = request.as_stored(verified.path, kept)
    trace = TraceContext("1" * 32, "2" * 16)
    received = Received(one.webhook, request, verified.by, AT, trace)
    made = accepted(received, one.webhook.source.identify(request))
    return Record(made.topic, 0, offset, made.key, made.value, made.headers, round(AT.timestamp() * 1000))


def login(sources: Mapping[str, Configured], *, offset: int = 0) -> Record:
    return stored(sources["weavr.acme"], "/login/watch", weavr_headers(LOGIN), LOGIN, offset=offset)


def with_header(record: Record, name: str, value: bytes) -> Record:
    return replace(record, headers=tuple((one, value if one == name else old) for one, old in record.headers))


def proved(sources: Mapping[str, Configured], record: Record) -> tuple[Result, str]:
    """Return the result; whether ordinary records are verified at once or as all others makes no difference to it."""
    result = EventVerifier(list(sources.values())).verify(record)
    assert EventVerifier(with_webhook(sources, hot=None)).verify(record) == result
    return result


def with_webhook(sources: Mapping[str, Configured], **changes: Any) -> list[Configured]:
    return [replace(one, webhook=replace(one.webhook, **changes)) for one in sources.values()]


def test_what_was_received_is_proved_again(sources: dict[str, Configured]) -> None:
    """Long after its key has ended and its time has passed: both are checked as of receipt."""
    signature = hmac.digest(KEYS["shop-key"], b"{}", hashlib.sha256).hex().encode()
    headers = (("x-webhook-signature", signature), ("x-id", b"1"), ("content-type", b"application/json"))
    shop = stored(sources["webhooks.shop"], "", headers, b"{}")
    assert proved(sources, login(sources)) == (Result.VERIFIED, "")
    assert proved(sources, shop) == (Result.VERIFIED, "")


class Unused:
    """A verifier that nobody asks."""

    def __init__(self, like: Verifier) -> None:
        self.stored_headers = like.stored_headers

    def check_head(self, request: WebhookRequest, now: datetime) -> None:
        raise AssertionError(request, now)

    def verify(self, request: WebhookRequest, now: datetime) -> Verified:
        raise AssertionError(request, now)


def test_an_ordinary_record_is_verified_at_once(sources: dict[str, Configured]) -> None:
    """The verifier, which can name the reason of a refusal, costs several times as much."""
    weavr = {"weavr.acme": sources["weavr.acme"]}
    quick = with_webhook(weavr, verifier=Unused(weavr["weavr.acme"].webhook.verifier))
    assert EventVerifier(quick).verify(login(sources)) == (Result.VERIFIED, "")


@pytest.mark.parametrize("name", ["signature-v2", "call-ref", "published-timestamp", "user-agent", "ce_time"])
def test_a_header_that_is_there_twice_is_no_ordinary_one(sources: dict[str, Configured], name: str) -> None:
    record = login(sources)
    value = record.text(name).encode()
    for repeated in (
        ((name, value), *record.headers),
        (*record.headers, (name, b"")),
        (*record.headers, (name, value)),
    ):
        proved(sources, replace(record, headers=repeated))


@pytest.mark.parametrize("name", ["signature-v2", "call-ref", "published-timestamp", "ce_time"])
@pytest.mark.parametrize("value", [b"", b"x", b"AAAA", b"1769121839001", b"2026-01-01", b"2026-01-22T22:43:59+00:00"])
def test_a_header_of_any_value_has_one_result(sources: dict[str, Configured], name: str, value: bytes) -> None:
    proved(sources, with_header(login(sources), name, value))


def test_a_value_or_header_that_was_changed_fails(sources: dict[str, Configured]) -> None:
    record = login(sources)
    changed = replace(record, value=record.value.replace(b"1234", b"1235"))
    assert proved(sources, changed) == (Result.FAILED, "not_verified")
    assert proved(sources, with_header(record, "call-ref", b"call-2")) == (Result.FAILED, "not_verified")
    later = (AT + timedelta(hours=6)).isoformat().encode()
    assert proved(sources, with_header(record, "ce_time", later)) == (Result.FAILED, "timestamp_too_old")


def test_a_signature_that_was_taken_away_fails(sources: dict[str, Configured]) -> None:
    record = login(sources)
    bare = replace(record, headers=tuple(one for one in record.headers if one[0] != "signature-v2"))
    assert proved(sources, bare) == (Result.FAILED, "header_missing")


@pytest.mark.parametrize("time", [b"yesterday", b"2026-01-22T22:43:59", b""])
def test_a_record_without_its_time_fails(sources: dict[str, Configured], time: bytes) -> None:
    assert proved(sources, with_header(login(sources), "ce_time", time)) == (Result.FAILED, "ce_time")


def test_a_path_that_its_sender_does_not_sign_cannot_be_proved(sources: dict[str, Configured]) -> None:
    body = json.dumps(body_of("/bulk_process_end/watch", Random(1))).encode()  # noqa: S311 - of tests only
    record = stored(sources["weavr.acme"], "/bulk_process_end/watch", (("published-timestamp", AT_MS),), body)
    assert proved(sources, record) == (Result.UNSIGNED_PATH, "")


def test_the_legacy_signature_proves_nothing_about_the_value(sources: dict[str, Configured]) -> None:
    digest = base64.b64encode(hmac.digest(KEYS["api-key"], AT_MS, hashlib.sha256))
    headers = (("published-timestamp", AT_MS), ("signature", digest))
    record = stored(sources["weavr.acme"], "/login/watch", headers, LOGIN)
    assert proved(sources, record) == (Result.BODY_UNSIGNED, "")


def test_a_shared_secret_is_not_kept(sources: dict[str, Configured]) -> None:
    record = replace(login(sources), topic="card-batch.requested")
    record = with_header(record, "ce_source", b"/webhooks/ecs/acme")
    assert proved(sources, record) == (Result.SHARED_SECRET, "")


@pytest.mark.parametrize(
    ("header", "value"),
    [("ce_source", b"/webhooks/weavr/gone"), ("ce_source", b"/stages/process"), ("pipeline_integration", b"other")],
)
def test_a_source_that_is_not_configured_is_unknown(sources: dict[str, Configured], header: str, value: bytes) -> None:
    assert proved(sources, with_header(login(sources), header, value)) == (Result.SOURCE_UNKNOWN, "")


def test_a_time_at_which_no_key_counted_is_not_a_failure(sources: dict[str, Configured]) -> None:
    record = with_header(login(sources), "ce_time", b"2025-12-31T00:00:00Z")
    assert proved(sources, record) == (Result.KEY_RETIRED, "")


# the command


@pytest.fixture
def records(sources: dict[str, Configured], monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """What the topics hold: one that is right, one that is not."""
    bad = login(sources, offset=7)
    held = [login(sources), replace(bad, value=bad.value + b" ")]

    async def read(*_: object, **given: Any) -> AsyncGenerator[Record, None]:
        assert (given["since"], given["follow"]) == ("earliest", False)
        for one in held:
            yield one

    monkeypatch.setattr("pipeline.cli.events.read_on", read)
    return held


def test_a_failure_is_named_and_exit_1(run: Run, records: list[Record]) -> None:
    del records
    result = run("events", "verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (
        1,
        {
            "ok": False,
            "checked": 2,
            "verified": 1,
            "failed": 1,
            "not_verifiable": {
                "unsigned_path": 0,
                "body_unsigned": 0,
                "shared_secret": 0,
                "source_unknown": 0,
                "key_retired": 0,
            },
            "failures": [{"topic": "card-events.login", "partition": 0, "offset": 7, "reason": "not_verified"}],
        },
    )
    lines = run("events", "verify").stdout.splitlines()
    assert lines[:3] == ["checked         2", "verified        1", "failed          1"]
    assert lines[-1] == "failed: card-events.login/0/7: not_verified"


def test_without_a_failure_it_is_exit_0(run: Run, records: list[Record]) -> None:
    del records
    result = run("events", "verify", "--count", "1", "--json")
    assert (result.exit_code, json.loads(result.stdout)["checked"]) == (0, 1)
