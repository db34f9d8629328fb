"""Bodies as senders encode, wrap and mark them: the answer, the topic, and what a subscriber reads from the record."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest

from pipeline.app import open_webhooks
from pipeline.cli.event_verification import EventVerifier, Result
from pipeline.cli.source_view import configured
from pipeline.contracts import OutgoingRecord, Record, Topic, first_values
from pipeline.kafka.testing import MemoryPublisher
from pipeline.settings import Settings, load_settings
from pipeline.subscriber.event import event_of_record
from pipeline.subscriber.models import MODELS
from pipeline.webhooks.quarantine import read_quarantined, shown
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import Serving, serving

KEY: Final = "synthetic-key-of-the-bodies"
CARD: Final = "4111111111111111"
MOST: Final = 2048
SETTINGS: Final = """
[webhooks.sent]
source = "hmac"
secrets = [{ file = "key" }]
id = "json:/id"
type = "json:/type"

[webhooks.sent.options]
header = "X-Signature"

[webhooks.plain]
source = "hmac"
secrets = [{ file = "key" }]
id = "json:/id"
type = "json:/type"

[webhooks.plain.options]
header = "X-Signature"
signed_body = "plain"

[webhooks.dated]
source = "hmac"
secrets = [{ file = "key" }]
type = "json:/type"

[webhooks.dated.options]
header = "X-Signature"
timestamp = "json:/at"
tolerance_seconds = 86400

[webhooks.named]
source = "hmac"
secrets = [{ file = "key" }]
id = "header:X-Id"
type = "header:X-Type"
key = "header:X-Id"

[webhooks.named.options]
header = "X-Signature"

[webhooks.code]
preset = "github"
secrets = [{ file = "key" }]

[webhooks.chat]
preset = "slack"
secrets = [{ file = "key" }]

[weavr.acme]
secrets = [{ file = "key" }]

[ecs.acme]
hosts.input = ["files.example.com"]
hosts.result = ["files.example.com"]
hosts.callback = ["ecs.example.com"]
webhook = { scheme = "shared-secret", secrets = [{ file = "key" }] }
callback = { token_file = "key" }
"""
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
DATA: Final = {"id": "1", "type": "a.b", "card": CARD}
BODY: Final = json.dumps(DATA).encode()
BOM: Final = b"\xef\xbb\xbf"
PACKED: Final = gzip.compress(BODY, mtime=0)
PUSH: Final = {"zen": "x", "repository": {"id": 7}}
ACTION: Final = {"type": "block_actions", "team_id": "T1"}
LOGIN: Final = json.dumps(
    {
        "credential": {"id": "1234", "type": "root_users"},
        "type": "LOGIN",
        "status": "VERIFIED",
        "publishedTimestamp": "1769121839000",
    }
).encode()
ANNOUNCED: Final = json.dumps(
    {
        "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
        "partner_reference_id": "location two",
        "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
        "external_location_ids": [],
        "record_count": 2,
        "input_file_url": "https://files.example.com/in.csv",
        "result_upload_url": "https://files.example.com/out.csv",
        "expires_at": "2026-01-22T22:43:59.295Z",
        "callback_url": "https://ecs.example.com/done",
    }
).encode()


def raw_deflate(body: bytes) -> bytes:
    """Deflate without the zlib wrapper."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@dataclass(frozen=True)
class Case:
    """A request, and what comes of it.

    Attributes:
        source: Its table in the settings.
        body: As sent.
        signed: What its signature covers; None: the body as sent.
        status: The answer.
        rule: Of a refusal, or of what is wrong with a request in quarantine.
        kept: Whether it is in quarantine.
        data: What a subscriber reads from the record of the event.
        encoding: The record's content-encoding.
    """

    source: str
    body: bytes
    signed: bytes | None = None
    media_type: str | None = JSON
    content_encoding: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    rule: str = ""
    kept: bool = False
    data: Any = None
    encoding: str | None = None


def sent(body: bytes, named: str | None = None, **more: Any) -> Case:
    return Case("webhooks.sent", body, content_encoding=named, **more)


def plain(body: bytes, named: str, **more: Any) -> Case:
    return Case("webhooks.plain", body, content_encoding=named, **more)


def kept(source: str, body: bytes, rule: str, **more: Any) -> Case:
    return Case(source, body, kept=True, rule=rule, **more)


def code(body: bytes, **more: Any) -> Case:
    return Case("webhooks.code", body, **more)


def by_headers(body: bytes, **more: Any) -> Case:
    return Case("webhooks.named", body, headers={"X-Id": "1", "X-Type": "a.b"}, **more)


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def ecs(body: bytes = ANNOUNCED, **more: Any) -> Case:
    return Case("ecs.acme", body, **({"status": 202, "data": json.loads(ANNOUNCED)} | more))


def weavr(body: bytes, **more: Any) -> Case:
    return Case("weavr.acme", body, **({"status": 204} | more))


NOW: Final = int(time.time())
DATED: Final = json.dumps({"type": "a.b", "at": NOW}).encode()
BOMB: Final = gzip.compress(BODY + b" " * MOST)

CASES: dict[str, Case] = {
    "json": sent(BODY, data=DATA),
    "gzip-signed-as-sent": sent(PACKED, "gzip", data=DATA, encoding="gzip"),
    "gzip-signed-plain": plain(PACKED, "gzip", signed=BODY, data=DATA, encoding="gzip"),
    "gzip-signed-plain-but-not-configured": sent(PACKED, "gzip", signed=BODY, status=401, rule="unauthenticated"),
    "gzip-signed-as-sent-but-configured-plain": plain(PACKED, "gzip", status=401, rule="unauthenticated"),
    "gzip-by-its-old-name": sent(PACKED, "x-gzip", data=DATA, encoding="gzip"),
    "gzip-in-capitals": sent(PACKED, "GZIP", data=DATA, encoding="gzip"),
    "gzip-of-two-members": sent(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), "gzip", data=DATA, encoding="gzip"),
    "gzip-with-zeros-behind": sent(PACKED + bytes(64), "gzip", data=DATA, encoding="gzip"),
    "gzip-in-the-header-only": sent(BODY, "gzip", data=DATA),
    "gzip-without-its-header": kept("webhooks.sent", PACKED, "not_utf8"),
    "gzip-cut-off": kept("webhooks.sent", PACKED[:-4], "encoding_broken", content_encoding="gzip"),
    "gzip-with-wrong-checksum": kept(
        "webhooks.sent", PACKED[:-8] + bytes(8), "encoding_broken", content_encoding="gzip"
    ),
    "gzip-with-text-behind": kept("webhooks.sent", PACKED + b"more", "encoding_broken", content_encoding="gzip"),
    "gzip-of-65-members": kept(
        "webhooks.sent", gzip.compress(b"") * 64 + PACKED, "encoding_broken", content_encoding="gzip"
    ),
    "gzip-cut-off-and-signed-plain": plain(PACKED[:-4], "gzip", signed=BODY, status=401, rule="unauthenticated"),
    "gzip-bomb": sent(BOMB, "gzip", status=413, rule="body_too_large"),
    "gzip-bomb-signed-plain": plain(BOMB, "gzip", status=413, rule="body_too_large"),
    "gzip-of-a-bomb": kept("webhooks.sent", gzip.compress(BOMB), "content_encoding", content_encoding="gzip, gzip"),
    "gzip-and-time-inside": Case(
        "webhooks.dated",
        gzip.compress(DATED),
        content_encoding="gzip",
        data=json.loads(DATED),
        encoding="gzip",
    ),
    "gzip-of-a-source-that-reads-headers": by_headers(PACKED, content_encoding="gzip", data=DATA, encoding="gzip"),
    "gzip-cut-off-of-a-source-that-reads-headers": by_headers(
        PACKED[:-4], content_encoding="gzip", kept=True, rule="encoding_broken"
    ),
    "gzip-with-byte-order-mark": sent(gzip.compress(BOM + BODY), "gzip", data=DATA, encoding="gzip"),
    "deflate": sent(zlib.compress(BODY), "deflate", data=DATA, encoding="deflate"),
    "deflate-without-zlib-header": sent(raw_deflate(BODY), "deflate", data=DATA, encoding="deflate"),
    "brotli": kept("webhooks.sent", b"\x0b\x02\x80{}\x03", "content_encoding", content_encoding="br"),
    "brotli-signed-plain": plain(b"\x0b\x02\x80{}\x03", "br", signed=b"{}", status=401, rule="unauthenticated"),
    "encoding-identity": sent(BODY, "identity", data=DATA),
    "encoding-is-a-charset": sent(BODY, "utf-8", data=DATA),
    "encoding-holds-a-card-number": kept("webhooks.sent", BODY, "content_encoding", content_encoding=CARD * 2),
    "github-form": code(form(payload=json.dumps(PUSH)), media_type=FORM, data=PUSH),
    "github-form-with-charset": code(form(payload=json.dumps(PUSH)), media_type=f"{FORM};charset=utf8", data=PUSH),
    "github-form-in-gzip": code(
        gzip.compress(form(payload=json.dumps(PUSH))),
        media_type=FORM,
        content_encoding="gzip",
        data=PUSH,
        encoding="gzip",
    ),
    "github-form-cut-off": code(form(payload=json.dumps(PUSH)[:-2]), media_type=FORM, kept=True, rule="not_json"),
    "github-form-not-utf8": code(b"payload=%FF", media_type=FORM, kept=True, rule="not_utf8"),
    "github-json": code(json.dumps(PUSH).encode(), data=PUSH),
    "github-json-cut-off": code(json.dumps(PUSH).encode()[:-2], kept=True, rule="not_json"),
    "github-json-array": code(b"[1]", data=[1]),
    "github-text": code(b"Hello", media_type="text/plain", data=None),
    "github-empty": code(b"", kept=True, rule="not_json"),
    "slack-interaction": Case("webhooks.chat", form(payload=json.dumps(ACTION)), media_type=FORM, data=ACTION),
    "form-of-fields": sent(
        form(id="1", type="a.b", text=""), media_type=FORM, data={"id": "1", "type": "a.b", "text": ""}
    ),
    "form-with-a-repeated-field": sent(
        b"id=1&type=a.b&to=x&to=y", media_type=FORM, data={"id": "1", "type": "a.b", "to": ["x", "y"]}
    ),
    "form-of-1001-fields": kept("webhooks.sent", b"a&" * 1001, "too_many", media_type=FORM),
    "json-that-calls-itself-a-form": sent(BODY, media_type=FORM, data=DATA),
    "json-without-a-media-type": sent(BODY, media_type=None, data=None),
    "json-with-byte-order-mark": sent(BOM + BODY, data=DATA),
    "json-with-two-byte-order-marks": sent(BOM * 2 + BODY, data=DATA),
    "json-in-utf-16": kept("webhooks.sent", BODY.decode().encode("utf-16"), "not_utf8"),
    "ecs-charset-utf8": ecs(media_type="application/json; charset=utf8"),
    "ecs-charset-in-capitals-and-quotes": ecs(media_type='application/json;charset="UTF8"'),
    "ecs-charset-latin-1": ecs(media_type="application/json; charset=latin-1", status=415, rule="content_type"),
    "ecs-gzip": ecs(gzip.compress(ANNOUNCED), content_encoding="gzip", status=415, rule="content_encoding"),
    "ecs-encoding-is-a-charset": ecs(content_encoding="utf-8"),
    "ecs-byte-order-mark": ecs(BOM + ANNOUNCED),
    "ecs-form": ecs(form(payload=ANNOUNCED.decode()), media_type=FORM, status=415, rule="content_type"),
    "weavr-gzip": weavr(gzip.compress(LOGIN), content_encoding="gzip", data=json.loads(LOGIN), encoding="gzip"),
    "weavr-byte-order-mark": weavr(BOM + LOGIN, data=json.loads(LOGIN)),
    "weavr-brotli": weavr(b"\x0b\x02\x80{}\x03", content_encoding="br", kept=True, rule="content_encoding"),
}


@dataclass(frozen=True)
class World:
    """An ingress with the settings of this module, and what it published."""

    here: Serving
    settings: Settings
    publisher: MemoryPublisher


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "pipeline.toml").write_text(SETTINGS)
    settings, publisher = load_settings(tmp_path / "pipeline.toml", {}), MemoryPublisher()
    limits = IngressSettings(port=0, max_body_bytes=MOST)
    async with serving(publisher, webhooks=open_webhooks(settings), settings=limits) as here:
        yield World(here, settings, publisher)


def _digest(message: bytes) -> bytes:
    return hmac.digest(KEY.encode(), message, hashlib.sha256)


def signed_headers(case: Case) -> dict[str, str]:
    """The headers that prove a request, as its source's sender writes them."""
    message, now = case.body if case.signed is None else case.signed, str(int(time.time()))
    if case.source == "ecs.acme":
        return {"X-Webhook-Secret": KEY}
    if case.source == "weavr.acme":
        message += (millis := f"{now}000").encode()
        return {"published-timestamp": millis, "signature-v2": base64.b64encode(_digest(message)).decode()}
    if case.source == "webhooks.code":
        return {
            "X-Hub-Signature-256": "sha256=" + _digest(message).hex(),
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "d-1",
        }
    if case.source == "webhooks.chat":
        signature = _digest(f"v0:{now}:".encode() + message).hex()
        return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={signature}"}
    return {"X-Signature": _digest(message).hex()}


async def answered(world: World, case: Case) -> tuple[int, str]:
    """Send a request; return the status, and the rule of a refusal."""
    kind, _, name = case.source.partition(".")
    path = f"/webhooks/{'sources' if kind == 'webhooks' else kind}/{name}{'/login/watch' if kind == 'weavr' else ''}"
    headers = signed_headers(case) | case.headers
    if case.media_type is not None:
        headers["Content-Type"] = case.media_type
    if case.content_encoding is not None:
        headers["Content-Encoding"] = case.content_encoding
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as client,
        client.post(world.here.server.url + path, data=_Raw(case.body), headers=headers) as answer,
    ):
        text = await answer.text()
        assert CARD not in text
        return answer.status, json.loads(text)["rule"] if answer.status >= 400 else ""


class _Raw(aiohttp.BytesPayload):
    """A body that the client sends as it is, whatever Content-Encoding says."""


def stored(record: OutgoingRecord) -> Record:
    return Record(record.topic, 0, 0, record.key, record.value, record.headers, NOW * 1000)


@pytest.mark.parametrize("name", CASES)
async def test_the_answer_and_what_a_subscriber_reads(
    name: str, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    status, rule = await answered(world, case)
    assert (status, rule) == (case.status, "" if case.kept else case.rule)
    out = "".join(capfd.readouterr())
    assert CARD not in out
    assert KEY not in out
    if status >= 400:
        assert world.publisher.published == []
        return
    record = world.publisher.published[0]
    headers = first_values(record.headers)
    assert record.value == case.body
    assert headers["content-type"] == (case.media_type or "application/octet-stream")
    if case.kept:
        assert record.topic in {Topic.WEBHOOK_QUARANTINE, Topic.EVENTS_QUARANTINE}
        assert headers["pipeline_quarantine_reasons"].endswith(f":{case.rule}")
        assert CARD not in json.dumps(shown(read_quarantined(stored(record))))
        return
    assert "quarantine" not in str(record.topic)
    assert headers.get("content-encoding") == case.encoding
    found = event_of_record(stored(record), MODELS).data
    assert (
        found.model_dump(mode="json", by_alias=True, exclude_unset=True) if hasattr(found, "model_dump") else found
    ) == case.data
    verified, why = EventVerifier(configured(world.settings, secrets=True)).verify(stored(record))
    assert (verified, why) == (Result.SHARED_SECRET if case.source == "ecs.acme" else Result.VERIFIED, "")
