"""Requests from other projects' bug trackers, byte for byte: each is answered as its sender wants."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import pytest
from support.paths import ROOT

from pipeline.app import open_webhooks
from pipeline.contracts import Record, first_values
from pipeline.kafka.testing import MemoryPublisher
from pipeline.settings import load_settings
from pipeline.subscriber.event import event_of_record
from pipeline.subscriber.models import MODELS
from pipeline.webhooks.testing import serving

FILE: Final = ROOT / "tests" / "inputs" / "files" / "webhooks" / "reported.json"
REPORTED: Final[Mapping[str, Any]] = {one["name"]: one for one in json.loads(FILE.read_text("utf-8"))}
HMAC: Final = 'source = "hmac"\nid = "json:/id"\ntype = "json:/type"\noptions.header = "X-Signature"\n'
CHALLENGE: Final = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"


class Answer(NamedTuple):
    """How a source is configured, and what comes of the request.

    Attributes:
        table: Its settings.
        type: Of the event; None: there is none.
        data: What a subscriber reads.
        encoding: The record's content-encoding.
        text: The answer's body.
    """

    table: str
    type: str | None = None
    data: Any = None
    encoding: str | None = None
    text: str = ""


USER: Final = {"type": "user.created", "data": {"id": "u_1"}}
PUSH: Final = {"zen": "x", "repository": {"full_name": "o/r"}}
EVENT: Final = {"type": "a.b", "id": "1"}
ANSWERS: Final[dict[str, Answer]] = {
    "workos": Answer(
        'preset = "workos"', "user.updated", {"id": "event_01", "event": "user.updated", "data": {"id": "user_01"}}
    ),
    "svix": Answer('preset = "svix"', "user.created", USER),
    "svix-rotation": Answer('preset = "svix"', "user.created", USER),
    "slack-challenge": Answer('preset = "slack"', text=CHALLENGE),
    "github-form": Answer('preset = "github"', "push", PUSH),
    "gzip-signed-plain": Answer(HMAC + 'options.signed_body = "plain"', "a.b", EVENT, "gzip"),
    "gzip-signed-as-sent": Answer(HMAC, "a.b", EVENT, "gzip"),
    "json-bom": Answer(HMAC, "a.b", EVENT),
}


def test_each_report_has_an_answer() -> None:
    assert ANSWERS.keys() == REPORTED.keys()


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_reported_request_is_answered_as_its_sender_wants(name: str, tmp_path: Path) -> None:
    report, wanted = REPORTED[name], ANSWERS[name]
    (tmp_path / "key").write_text(report["secret"])
    (tmp_path / "key").chmod(0o600)
    text = f'[webhooks.here]\nsecrets = [{{ file = "key" }}]\n{wanted.table}\n'
    (tmp_path / "pipeline.toml").write_text(text)
    webhooks = open_webhooks(load_settings(tmp_path / "pipeline.toml", {}))
    body, publisher = base64.b64decode(report["body_base64"]), MemoryPublisher()
    at = datetime.fromtimestamp(report["at"], UTC)
    async with (
        serving(publisher, webhooks=webhooks, clock=lambda: at) as here,
        aiohttp.ClientSession() as client,
        client.post(
            f"{here.server.url}/webhooks/sources/here", data=aiohttp.BytesPayload(body), headers=report["headers"]
        ) as answer,
    ):
        assert (answer.status, await answer.text()) == (200, wanted.text)
    assert len(publisher.published) == (wanted.type is not None)
    for record in publisher.published:
        assert (record.topic, record.value) == ("webhook-events.here", body)
        assert first_values(record.headers).get("content-encoding") == wanted.encoding
        event = event_of_record(Record(record.topic, 0, 0, record.key, record.value, record.headers, 0), MODELS)
        assert (event.type, event.data) == (f"here.{wanted.type}", wanted.data)
