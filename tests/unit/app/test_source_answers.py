"""Configured sources, from their tables to what they answer, over real HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.paths import SUPPORT

from pipeline.app import open_webhooks
from pipeline.contracts import Topic, event_id, first_values
from pipeline.kafka.testing import MemoryPublisher
from pipeline.settings import load_settings
from pipeline.webhooks.testing import Serving, serving

PACKAGE = SUPPORT / "parcel_source"
# the vector of GitHub's documentation, "Validating webhook deliveries", checked with openssl
SECRET = "It's a Secret to Everybody"
HELLO = b"Hello, World!"
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
SIGNED = {"X-Hub-Signature-256": SIGNATURE, "X-GitHub-Event": "ping", "X-GitHub-Delivery": "d-1"}
TEXT = """
[webhooks.code]
preset = "github"
secrets = [{ file = "key" }]

[webhooks.strict]
preset = "github"
secrets = [{ file = "key" }]
success_status = 204
unverified_status = 503
type = "json:/event"

[webhooks.parcels]
source = "parcels"
options = { depots = 2 }
secrets = [{ file = "key" }]
"""


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
async def here(publisher: MemoryPublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.syspath_prepend(str(PACKAGE))
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "pipeline.toml").write_text(TEXT)
    async with serving(publisher, webhooks=open_webhooks(load_settings(tmp_path / "pipeline.toml", {}))) as here:
        yield here
    sys.modules.pop("parcel_source", None)


async def _post(here: Serving, name: str, headers: dict[str, str], body: bytes = HELLO) -> tuple[int, bytes]:
    url = f"{here.server.url}/webhooks/sources/{name}"
    async with aiohttp.ClientSession() as client, client.post(url, data=body, headers=headers) as response:
        return response.status, await response.read()


def _alarms(here: Serving, integration: str, kind: str) -> float:
    labels = {"integration": integration, "kind": kind}
    return here.metrics.registry.get_sample_value("pipeline_ingress_alarms_total", labels) or 0.0


async def test_an_event_of_a_preset_is_one_record(here: Serving, publisher: MemoryPublisher) -> None:
    """The body need be no JSON where nothing is read from it; its media type is stored as it came."""
    assert await _post(here, "code", SIGNED | {"Content-Type": "text/plain"}) == (200, b"")
    (record,) = publisher.published
    known = dict(first_values(record.headers))
    del known["traceparent"], known["ce_time"]
    assert (record.topic, record.key, record.value) == ("webhook-events.code", "code", HELLO)
    assert known == {
        "ce_specversion": "1.0",
        "ce_id": event_id("code", "d-1"),
        "ce_source": "/webhooks/sources/code",
        "ce_type": "code.ping",
        "ce_subject": "code",
        "ce_partitionkey": "code",
        "content-type": "text/plain",
        "pipeline_integration": "code",
        "x-hub-signature-256": SIGNATURE,
        "x-github-event": "ping",
        "x-github-delivery": "d-1",
    }


@pytest.mark.parametrize(("name", "status", "alarms"), [("code", 401, 0), ("strict", 503, 1)])
async def test_what_no_secret_verifies_is_answered_as_configured(
    here: Serving, publisher: MemoryPublisher, name: str, status: int, alarms: int
) -> None:
    answered, _ = await _post(here, name, SIGNED, b"another body")
    assert (answered, _alarms(here, name, "unverified")) == (status, alarms)
    assert publisher.published == []


async def test_what_is_not_understood_is_kept(here: Serving, publisher: MemoryPublisher) -> None:
    assert (await _post(here, "strict", SIGNED))[0] == 204
    record, audit = publisher.published
    assert (record.topic, record.key, record.value) == (Topic.WEBHOOK_QUARANTINE, "strict", HELLO)
    assert first_values(record.headers)["pipeline_quarantine_reasons"] == "body:not_json"
    assert json.loads(audit.value)["detail"]["reasons"] == ["body:not_json"]
    assert _alarms(here, "strict", "quarantined") == 1


async def test_a_custom_source_is_served_like_any_other(here: Serving, publisher: MemoryPublisher) -> None:
    headers = {"X-Parcel-Key": SECRET}
    assert (await _post(here, "parcels", headers, b"17 delivered"))[0] == 200
    assert (await _post(here, "parcels", headers, b"lost"))[0] == 200
    assert (await _post(here, "parcels", {"X-Parcel-Key": "another"}, b"17 delivered"))[0] == 401
    taken, kept, _ = publisher.published
    assert (taken.topic, taken.key) == ("webhook-events.parcels", "parcels/1")
    assert kept.topic is Topic.WEBHOOK_QUARANTINE
    assert SECRET not in repr(publisher.published)
