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

from pipeline.app import open_sources
from pipeline.contracts import Topic
from pipeline.secret_files import SecretUnreadable
from pipeline.settings import ConfigError, Settings, load_settings
from pipeline.webhooks.sources import Delivery, Explainable, Policy
from pipeline.webhooks.verification import Reason, SignatureRefused
from pipeline.webhooks.webhook import Source

PACKAGE = SUPPORT / "parcel_provider"
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
provider = "parcels"
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
    sys.modules.pop("parcel_provider", None)


def _hub(settings: Settings) -> Source:
    return next(source for source in open_sources(settings) if source.integration == "hub")


def test_every_table_is_a_source(settings: Settings) -> None:
    assert [(source.kind, source.integration, source.path) for source in open_sources(settings)] == [
        ("ecs", "acme", "/webhooks/ecs/acme"),
        ("weavr", "acme", "/webhooks/weavr/acme"),
        ("hmac", "hub", "/webhooks/sources/hub"),
        ("parcels", "parcels", "/webhooks/sources/parcels"),
    ]


def test_each_verifies_with_its_secrets(settings: Settings) -> None:
    ecs, weavr, hub, parcels = open_sources(settings)
    digest = hmac.digest(b"synthetic-key-1", b"{}" + TIME, "sha256")
    signed = (("published-timestamp", TIME), ("signature-v2", base64.b64encode(digest)))
    of_body = hmac.digest(b"synthetic-key-1", b"{}", "sha256").hex().encode()
    for source, delivery in (
        (ecs, Delivery("", (("x-webhook-secret", b"synthetic-key-1"),), b"{}")),
        (weavr, Delivery("/managed_cards/watch", signed, b"{}")),
        (hub, Delivery("", (("x-hub-signature-256", b"sha256=" + of_body),), b"{}")),
        (parcels, Delivery("", (("x-parcel-key", b"synthetic-key-1"),), b"{}")),
    ):
        assert source.verifier.verify(delivery, NOW).by == "key"
        assert isinstance(source.verifier, Explainable)
        scheme = source.verifier.scheme_for(delivery)
        assert scheme is not None
        assert scheme.verify(delivery.headers, delivery.body, NOW) == "key"


def test_the_table_says_topic_and_statuses_and_the_provider_the_rest(settings: Settings) -> None:
    source = _hub(settings)
    found = source.provider.identify(Delivery("", (("x-github-event", b"push"),), b"{}"))
    assert (found.topic, found.type) == ("webhook-events.code", "hub.push")
    assert source.policy == Policy(
        success=202, unverified=503, invalid="keep", any_media_type=True, below=False, audit_accepted=True
    )
    assert source.provider.quarantine(Delivery("", (), b"")) is Topic.WEBHOOK_QUARANTINE


def test_a_provider_of_ones_own_is_a_source_as_any(settings: Settings) -> None:
    source = open_sources(settings)[-1]
    found = source.provider.identify(Delivery("", (), b"17 delivered"))
    assert (found.topic, found.key, found.subject) == ("webhook-events.parcels", "parcels/1", "17")


def test_without_secrets_nothing_is_verified_and_everything_identified(settings: Settings, tmp_path: Path) -> None:
    """For commands that only ask what a delivery is: no secret need be there."""
    (tmp_path / "key").unlink()
    sources = open_sources(settings, secrets=False)
    assert sources[-1].provider.identify(Delivery("", (), b"17 delivered")).subject == "17"
    with pytest.raises(SignatureRefused) as caught:
        sources[0].verifier.verify(Delivery("", (), b""), NOW)
    assert caught.value.reason is Reason.NO_ACTIVE_SECRET
    with pytest.raises(SecretUnreadable):
        open_sources(settings)


def test_a_provider_that_is_not_installed_is_a_setting_to_fix(settings: Settings) -> None:
    other = settings.webhooks["hub"].model_copy(update={"preset": None, "provider": "gone"})
    with pytest.raises(ConfigError, match=r"webhooks\.hub\.provider: There is no provider 'gone'"):
        open_sources(settings.model_copy(update={"webhooks": {"hub": other}}))
