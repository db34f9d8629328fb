"""How senders check a URL before they use it: the answer that they want, and nothing in any topic."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from pipeline.app import open_webhooks
from pipeline.kafka.testing import MemoryPublisher
from pipeline.settings import load_settings
from pipeline.webhooks.testing import Serving, serving

KEY: Final = "synthetic-key-of-the-checks"
NEXT: Final = "synthetic-key-of-tomorrow"
TOKEN: Final = "synthetic-verify-token"
CHALLENGE: Final = "3eZbrw1aBm2r-4111111111111111"
SETTINGS: Final = """
[webhooks.chat]
preset = "slack"
secrets = [{ file = "key" }]

[webhooks.unasked]
preset = "slack"
secrets = [{ file = "key" }]
url_checks = []

[webhooks.meeting]
preset = "zoom"
secrets = [{ file = "key" }, { file = "next" }]

[webhooks.social]
preset = "meta"
secrets = [{ file = "key" }]
url_check_token_file = "token"

[webhooks.tokenless]
preset = "meta"
secrets = [{ file = "key" }]

[webhooks.files]
preset = "dropbox"
secrets = [{ file = "key" }]

[webhooks.short]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
url_checks = ["crc-token"]

[webhooks.streams]
source = "hmac"
secrets = [{ file = "key" }]
type = "header:Twitch-Eventsub-Subscription-Type"
url_checks = ["eventsub"]

[webhooks.streams.options]
header = "Twitch-Eventsub-Message-Signature"
prefix = "sha256="
signed = ["header:Twitch-Eventsub-Message-Id", "timestamp", "body"]
timestamp = "header:Twitch-Eventsub-Message-Timestamp"
timestamp_unit = "iso8601"

[webhooks.tasks]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
url_checks = ["hook-secret"]

[webhooks.tasks.options]
header = "X-Hook-Signature"

[webhooks.hooks]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
url_checks = ["hook-secret", "validation-token"]

[webhooks.mail]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
url_checks = ["validation-token"]

[webhooks.boards]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
url_checks = ["get", "head", "challenge"]

[webhooks.cloud]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
url_checks = ["options"]
requests_per_second = 2

[webhooks.plain]
source = "hmac"
secrets = [{ file = "key" }]
type = "text:event"
"""


class Case(NamedTuple):
    """A request, and its answer.

    Attributes:
        source: Its name.
        body: Of a POST.
        signed_with: The secret; None: not signed.
        text: The answer's body, unless it is a refusal.
        rule: Of a refusal.
        answered: Headers of the answer; None: there is not one of this name.
        event: Whether it is an event, and published.
    """

    source: str
    method: str = "POST"
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    signed_with: str | None = KEY
    status: int = 200
    text: str = ""
    rule: str = ""
    answered: Mapping[str, str | None] = {}
    event: bool = False


def challenge(**changed: Any) -> bytes:
    return json.dumps({"type": "url_verification", "challenge": CHALLENGE} | changed).encode()


def zoom(secret: str) -> Case:
    token = hmac.digest(secret.encode(), CHALLENGE.encode(), "sha256").hex()
    return Case(
        "meeting",
        body=ZOOM,
        signed_with=secret,
        text=json.dumps({"plainToken": CHALLENGE, "encryptedToken": token}),
        answered={"Content-Type": "application/json"},
    )


def get(source: str, query: str, **more: Any) -> Case:
    return Case(source, "GET", query, signed_with=None, **more)


def hub(mode: str = "subscribe", token: str = TOKEN) -> str:
    return f"hub.mode={mode}&hub.verify_token={token}&hub.challenge={CHALLENGE}"


ZOOM: Final = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": CHALLENGE}}).encode()
TWITCH: Final = {"Twitch-Eventsub-Message-Type": "webhook_callback_verification"}
NOTIFIED: Final = {"Twitch-Eventsub-Message-Type": "notification", "Twitch-Eventsub-Subscription-Type": "stream.online"}
TEXT: Final = {"Content-Type": "text/plain", "X-Content-Type-Options": "nosniff"}
CRC: Final = base64.b64encode(hmac.digest(KEY.encode(), CHALLENGE.encode(), "sha256")).decode()
REFUSED: Final[dict[str, Any]] = {"status": 401, "rule": "unauthenticated"}
NO_CHECK: Final[dict[str, Any]] = {"status": 405, "rule": "method_not_allowed"}
PAGE: Final = "<script>alert(1)</script>"
HOOK: Final = "b537207f20cbfa02357cf448134da559"
ORIGIN: Final = {"WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}

CASES: dict[str, Case] = {
    "slack-challenge": Case("chat", body=challenge(token="x"), text=CHALLENGE, answered=TEXT),
    "slack-challenge-unsigned": Case("chat", body=challenge(), signed_with=None, **REFUSED),
    "slack-challenge-wrongly-signed": Case("chat", body=challenge(), signed_with=NEXT, **REFUSED),
    "slack-challenge-that-is-a-page": Case("chat", body=challenge(challenge=PAGE), text=PAGE, answered=TEXT),
    "slack-challenge-missing": Case("chat", body=b'{"type": "url_verification"}', event=True),
    "slack-challenge-of-5000-characters": Case("chat", body=challenge(challenge="x" * 5000), event=True),
    "slack-event-with-a-challenge": Case("chat", body=challenge(type="event_callback"), event=True),
    "slack-challenge-switched-off": Case("unasked", body=challenge(), event=True),
    "zoom-validation": zoom(KEY),
    "zoom-validation-with-the-next-secret": zoom(NEXT),
    "zoom-validation-unsigned": Case("meeting", body=ZOOM, signed_with=None, **REFUSED),
    "zoom-event": Case("meeting", body=ZOOM.replace(b"endpoint.url_validation", b"meeting.started"), event=True),
    "meta-challenge": get("social", hub(), text=CHALLENGE, answered=TEXT),
    "meta-challenge-with-another-token": get("social", hub(token="another"), **REFUSED),
    "meta-challenge-without-token": get("social", f"hub.mode=subscribe&hub.challenge={CHALLENGE}", **REFUSED),
    "meta-challenge-of-another-mode": get("social", hub("unsubscribe"), **NO_CHECK),
    "meta-challenge-twice": get("social", f"{hub()}&hub.challenge=x", **NO_CHECK),
    "meta-challenge-without-a-configured-token": get("tokenless", hub(), **NO_CHECK),
    "meta-challenge-of-another-source": get("plain", hub(), answered={"Allow": "POST"}, **NO_CHECK),
    "dropbox-challenge": get("files", f"challenge={CHALLENGE}", text=CHALLENGE, answered=TEXT),
    "dropbox-challenge-that-is-a-page": get("files", f"challenge={quote(PAGE)}", text=PAGE, answered=TEXT),
    "dropbox-challenge-not-utf8": get("files", "challenge=%FF%00", text="\ufffd\0", answered=TEXT),
    "dropbox-challenge-empty": get("files", "challenge=", answered={"Allow": "POST, GET"}, **NO_CHECK),
    "dropbox-challenge-of-5000-characters": get("files", f"challenge={'x' * 5000}", **NO_CHECK),
    "dropbox-challenge-among-65-parameters": get("files", f"challenge=x{'&a=1' * 64}", **NO_CHECK),
    "x-crc": get("short", f"crc_token={CHALLENGE}", text=json.dumps({"response_token": f"sha256={CRC}"})),
    "x-crc-that-is-an-event": get("short", f"crc_token={quote(json.dumps({'event': 'x'}))}", **NO_CHECK),
    "x-crc-that-is-a-form": get("short", "crc_token=payload%3D1", **NO_CHECK),
    "x-crc-of-300-characters": get("short", f"crc_token={'x' * 300}", **NO_CHECK),
    "x-event-signed-by-a-crc": Case("short", body=CHALLENGE.encode(), **REFUSED),
    "x-empty-event": Case("short", body=b"", **REFUSED),
    "x-event": Case("short", body=b'{"for_user_id": "1"}', event=True),
    "twitch-verification": Case("streams", headers=TWITCH, body=challenge(), text=CHALLENGE, answered=TEXT),
    "twitch-verification-unsigned": Case("streams", headers=TWITCH, body=challenge(), signed_with=None, **REFUSED),
    "twitch-notification": Case("streams", headers=NOTIFIED, body=challenge(), event=True),
    "asana-handshake": Case(
        "tasks", headers={"X-Hook-Secret": HOOK}, body=b"{}", signed_with=None, answered={"X-Hook-Secret": HOOK}
    ),
    "asana-handshake-with-a-blank": Case(
        "tasks",
        headers={"X-Hook-Secret": "a b"},
        body=b"{}",
        signed_with=None,
        answered={"X-Hook-Secret": None},
        **REFUSED,
    ),
    "hook-secret-in-an-event": Case("hooks", headers={"X-Hook-Secret": HOOK}, body=b"{}", event=True),
    "hook-secret-with-a-wrong-signature": Case(
        "hooks", headers={"X-Hook-Secret": HOOK}, body=b"{}", signed_with=NEXT, answered={"X-Hook-Secret": HOOK}
    ),
    "validation-token-in-an-event": Case("hooks", query="validationToken=x", body=b"{}", event=True),
    "asana-event": Case("tasks", body=b'{"events": []}', event=True, answered={"X-Hook-Secret": None}),
    "graph-validation": Case(
        "mail", query="validationToken=Validation%3a+Testing+4111", signed_with=None, text="Validation: Testing 4111"
    ),
    "sharepoint-validation": Case("mail", query="validationtoken=x", signed_with=None, text="x", answered=TEXT),
    "graph-validation-by-get": get("mail", "validationToken=x", answered={"Allow": "POST"}, **NO_CHECK),
    "graph-notification-without-token": Case("mail", body=b"{}", signed_with=None, **REFUSED),
    "head": Case("boards", "HEAD", signed_with=None),
    "head-not-configured": Case("plain", "HEAD", signed_with=None, status=405, answered={"Allow": "POST"}),
    "get": get("boards", ""),
    "get-with-a-challenge": get("boards", f"challenge={CHALLENGE}", text=CHALLENGE, answered=TEXT),
    "get-not-configured": get("plain", "", answered={"Allow": "POST"}, **NO_CHECK),
    "options": Case(
        "cloud", "OPTIONS", signed_with=None, answered={"Allow": "POST, OPTIONS", "WebHook-Allowed-Origin": None}
    ),
    "options-of-cloudevents": Case(
        "cloud",
        "OPTIONS",
        headers=ORIGIN,
        signed_with=None,
        answered={"WebHook-Allowed-Origin": "eventemitter.example.com", "WebHook-Allowed-Rate": "120"},
    ),
    "options-of-a-strange-origin": Case(
        "cloud",
        "OPTIONS",
        headers={"WebHook-Request-Origin": PAGE},
        signed_with=None,
        answered={"WebHook-Allowed-Origin": None, "WebHook-Allowed-Rate": None},
    ),
    "options-not-configured": Case("plain", "OPTIONS", headers=ORIGIN, signed_with=None, **NO_CHECK),
    "put": Case("boards", "PUT", signed_with=None, answered={"Allow": "POST, GET, HEAD"}, **NO_CHECK),
}


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
async def here(publisher: MemoryPublisher, tmp_path: Path) -> AsyncIterator[Serving]:
    for name, text in {"key": KEY, "next": NEXT, "token": TOKEN, "pipeline.toml": SETTINGS}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    async with serving(publisher, webhooks=open_webhooks(load_settings(tmp_path / "pipeline.toml", {}))) as here:
        yield here


def signature(case: Case, secret: str) -> dict[str, str]:
    """The headers that prove a request, as its source's sender writes them."""
    now = str(int(time.time()))

    def digest(*parts: str) -> str:
        return hmac.digest(secret.encode(), "".join(parts).encode() + case.body, hashlib.sha256).hex()

    if case.source in {"chat", "unasked", "meeting"}:
        name = {"meeting": "X-Zm"}.get(case.source, "X-Slack")
        signed = f"v0={digest(f'v0:{now}:')}"
        return {f"{name}-Request-Timestamp": now, f"{name}-Signature": signed}
    if case.source == "streams":
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {
            "Twitch-Eventsub-Message-Id": "m-1",
            "Twitch-Eventsub-Message-Timestamp": at,
            "Twitch-Eventsub-Message-Signature": f"sha256={digest('m-1', at)}",
        }
    return {"X-Hook-Signature" if case.source == "tasks" else "X-Webhook-Signature": digest()}


@pytest.mark.parametrize("name", CASES)
async def test_the_answer(
    name: str, here: Serving, publisher: MemoryPublisher, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    url = f"{here.server.url}/webhooks/sources/{case.source}{'?' if case.query else ''}{case.query}"
    headers = dict(case.headers)
    if case.method == "POST":
        headers["Content-Type"] = "application/json"
    if case.signed_with is not None:
        headers |= signature(case, case.signed_with)
    async with (
        aiohttp.ClientSession() as client,
        client.request(case.method, URL(url, encoded=True), data=case.body, headers=headers) as answer,
    ):
        text = await answer.text("utf-8")
    assert answer.status == case.status
    assert text == case.text or json.loads(text)["rule"] == case.rule
    for header, value in case.answered.items():
        assert answer.headers.get(header) == value
    assert len(publisher.published) == case.event
    out = "".join(capfd.readouterr())
    for hidden in (KEY, NEXT, TOKEN, CHALLENGE, HOOK, PAGE):
        assert hidden not in out
    if case.status == 200 and not case.event:
        counted = {"integration": case.source, "status": "200", "reason": "url_checked"}
        assert here.metrics.registry.get_sample_value("pipeline_ingress_requests_total", counted) == 1
