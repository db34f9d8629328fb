"""From settings to webhooks."""

from __future__ import annotations

import base64
import hmac
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.paths import SUPPORT

from pipeline.app import open_webhooks
from pipeline.contracts import Topic
from pipeline.secret_files import SecretUnreadable
from pipeline.settings import ConfigError, Settings, load_settings
from pipeline.webhooks.sources import Explainable, Policy, WebhookRequest
from pipeline.webhooks.verification import Reason, SignatureRefused
from pipeline.webhooks.webhook import Webhook

PACKAGE = SUPPORT / "parcel_source"
NOW = datetime(2026, 1, 22, 22, 44, tzinfo=UTC)
TIME = str(int(NOW.timestamp() * 1000)).encode()
TEXT = """
[ecs.acme]
partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"
webhook = { scheme = "shared-secret", secrets = [{ file = "key" }] }
callback = { token_file = "token" }
success_status = 204

[weavr.acme]
secrets = [{ file = "key" }]

[webhooks.hub]
preset = "github"
secrets = [{ file = "key" }]
topic = "webhook-events.code"
success_status = 202
unverified_status = 503
audit_accepted = true

[webhooks.parcels]
source = "parcels"
options = { depots = 2 }
secrets = [{ file = "key" }]
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.syspath_prepend(str(PACKAGE))
    (tmp_path / "key").write_text("synthetic-key-1")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "pipeline.toml").write_text(TEXT)
    yield load_settings(tmp_path / "pipeline.toml", {})
    sys.modules.pop("parcel_source", None)


def _hub(settings: Settings) -> Webhook:
    return next(webhook for webhook in open_webhooks(settings) if webhook.integration == "hub")


def test_every_table_is_a_webhook(settings: Settings) -> None:
    assert [(webhook.kind, webhook.integration, webhook.path) for webhook in open_webhooks(settings)] == [
        ("ecs", "acme", "/webhooks/ecs/acme"),
        ("weavr", "acme", "/webhooks/weavr/acme"),
        ("hmac", "hub", "/webhooks/sources/hub"),
        ("parcels", "parcels", "/webhooks/sources/parcels"),
    ]


def test_each_verifies_with_its_secrets(settings: Settings) -> None:
    ecs, weavr, hub, parcels = open_webhooks(settings)
    digest = hmac.digest(b"synthetic-key-1", b"{}" + TIME, "sha256")
    signed = (("published-timestamp", TIME), ("signature-v2", base64.b64encode(digest)))
    of_body = hmac.digest(b"synthetic-key-1", b"{}", "sha256").hex().encode()
    for webhook, request in (
        (ecs, WebhookRequest("", (("x-webhook-secret", b"synthetic-key-1"),), b"{}")),
        (weavr, WebhookRequest("/managed_cards/watch", signed, b"{}")),
        (hub, WebhookRequest("", (("x-hub-signature-256", b"sha256=" + of_body),), b"{}")),
        (parcels, WebhookRequest("", (("x-parcel-key", b"synthetic-key-1"),), b"{}")),
    ):
        assert webhook.verifier.verify(request, NOW).by == "key"
        assert isinstance(webhook.verifier, Explainable)
        scheme = webhook.verifier.scheme_for(request)
        assert scheme is not None
        assert scheme.verify(request.headers, request.body, NOW) == "key"


def test_the_table_says_topic_and_statuses_and_the_source_the_rest(settings: Settings) -> None:
    webhook = _hub(settings)
    found = webhook.source.identify(WebhookRequest("", (("x-github-event", b"push"),), b"{}"))
    assert (found.topic, found.type) == ("webhook-events.code", "hub.push")
    assert webhook.policy == Policy(
        success=202, unverified=503, invalid="keep", any_media_type=True, below=False, audit_accepted=True
    )
    assert webhook.source.quarantine(WebhookRequest("", (), b"")) is Topic.WEBHOOK_QUARANTINE


def test_a_custom_source_works_like_any_other(settings: Settings) -> None:
    webhook = open_webhooks(settings)[-1]
    found = webhook.source.identify(WebhookRequest("", (), b"17 delivered"))
    assert (found.topic, found.key, found.subject) == ("webhook-events.parcels", "parcels/1", "17")


def test_without_secrets_nothing_is_verified_and_everything_identified(settings: Settings, tmp_path: Path) -> None:
    """For commands that only identify requests: no secret file needs to exist."""
    (tmp_path / "key").unlink()
    webhooks = open_webhooks(settings, secrets=False)
    assert webhooks[-1].source.identify(WebhookRequest("", (), b"17 delivered")).subject == "17"
    with pytest.raises(SignatureRefused) as caught:
        webhooks[0].verifier.verify(WebhookRequest("", (), b""), NOW)
    assert caught.value.reason is Reason.NO_ACTIVE_SECRET
    with pytest.raises(SecretUnreadable):
        open_webhooks(settings)


def test_a_source_that_is_not_installed_is_a_configuration_error(settings: Settings) -> None:
    other = settings.webhooks["hub"].model_copy(update={"preset": None, "source": "gone"})
    with pytest.raises(ConfigError, match=r"webhooks\.hub\.source: There is no kind of source 'gone'"):
        open_webhooks(settings.model_copy(update={"webhooks": {"hub": other}}))
