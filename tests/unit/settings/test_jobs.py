"""Jobs of other partners: the table `[webhooks.NAME.jobs]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.paths import SUPPORT

from pipeline.app import open_webhooks
from pipeline.contracts import SPECS, Topic, job_key
from pipeline.contracts.weavr import KINDS
from pipeline.settings import ConfigError, Settings, load_settings
from pipeline.settings.review import review
from pipeline.webhooks.sources import InvalidBody, WebhookRequest

BANK = """\
[webhooks.bank]
source = "example-bank"
secrets = [{ file = "key" }]
[webhooks.bank.jobs]
partner = "example-bank"
options = { report_url = "https://bank.example/reports" }
[webhooks.bank.jobs.hosts]
input = ["bank.example"]
result = ["bank.example"]
callback = ["bank.example"]
"""
ECS = """\
[ecs.bank]
callback = { token_file = "key" }
[ecs.bank.webhook]
scheme = "shared-secret"
header = "X-Key"
secrets = [{ file = "key" }]
"""
ORDER = (
    b'{"order": 17, "branch": "north", "rows": 3, "cards": "https://bank.example/c", '
    b'"report": "https://bank.example/r", "until": "2026-01-21T13:00:00Z"}'
)


def ecs_body(expiry: str) -> bytes:
    """Return an announcement of ECS."""
    body = {
        "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
        "partner_reference_id": "acme-1",
        "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
        "external_location_ids": [],
        "record_count": 3,
        "input_file_url": "https://a.example/in",
        "result_upload_url": "https://a.example/out",
        "expires_at": expiry,
        "callback_url": "https://a.example/done",
    }
    return json.dumps(body).encode()


@pytest.fixture(autouse=True)
def bank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody's package, installed."""
    monkeypatch.syspath_prepend(str(SUPPORT / "bank_partner"))
    yield
    sys.modules.pop("bank_partner", None)


def loaded(folder: Path, text: str) -> Settings:
    (folder / "key").write_text("synthetic-webhook-secret-1")
    (folder / "key").chmod(0o600)
    (folder / "pipeline.toml").write_text(text)
    return load_settings(folder / "pipeline.toml", {}, webhook_secrets=True, warn=pytest.fail)


def test_a_source_that_announces_jobs_is_an_integration_with_jobs(tmp_path: Path) -> None:
    """Beside those of ECS, with the same defaults."""
    settings = loaded(tmp_path, BANK + ECS.replace("bank", "acme"))
    found = settings.job_integrations()
    assert list(found) == [*settings.job_names] == ["acme", "bank"]
    assert (found["bank"].key, found["acme"].key) == ("webhooks.bank.jobs", "ecs.acme")
    assert found["bank"].partner.error_message_limit == 80
    assert found["bank"].limits == found["acme"].limits


def test_its_webhooks_go_to_the_topics_of_jobs(tmp_path: Path) -> None:
    """Announcements hold URLs that are secrets: their quarantine is the sensitive one."""
    settings = loaded(tmp_path, BANK)
    (webhook,) = open_webhooks(settings)
    delivery = WebhookRequest(path="", headers=(), body=ORDER)
    found = webhook.source.identify(delivery)
    assert found.job_guid is not None
    assert (found.topic, found.key) == (Topic.BATCH_REQUESTED, job_key("bank", found.job_guid))
    assert webhook.source.quarantine(delivery) is Topic.BATCH_QUARANTINE
    names = {spec.topic for spec in settings.topics}
    assert Topic.BATCH_REQUESTED in names
    assert "webhook-events.bank" not in names


def test_the_announcement_is_the_same_job_for_the_ingress_and_for_the_stages(tmp_path: Path) -> None:
    settings = loaded(tmp_path, BANK)
    (webhook,) = open_webhooks(settings)
    identified = webhook.source.identify(WebhookRequest(path="", headers=(), body=ORDER))
    assert settings.job_integrations()["bank"].partner.decode(ORDER).job_guid == identified.job_guid


def test_the_topics_that_audit_reads_follow_from_the_settings(tmp_path: Path) -> None:
    """Announcements where there are jobs; events where they are audited, unless AUDIT could come too late for them."""
    weavr = '[weavr.acme]\nsecrets = [{ file = "key" }]\n'
    shop = '[webhooks.shop]\npreset = "shopify"\nsecrets = [{ file = "key" }]\n'
    assert loaded(tmp_path, "").audited_topics == (Topic.BATCH_REQUESTED,)
    assert loaded(tmp_path, ECS + weavr + shop).audited_topics == (Topic.BATCH_REQUESTED,)
    assert loaded(tmp_path, weavr + shop).audited_topics == ()
    audited = "audit_accepted = true\n"
    assert loaded(tmp_path, weavr + shop + audited).audited_topics == ("webhook-events.shop",)
    assert loaded(tmp_path, shop + audited + "retention_days = 2.9\n").audited_topics == ()
    found = loaded(tmp_path, weavr + audited + BANK).audited_topics
    assert found[0] == Topic.BATCH_REQUESTED
    assert set(found[1:]) == {kind.topic for kind in KINDS} - {Topic.EVENTS_STEPUP}
    assert {SPECS[topic].retention_ms for topic in found[1:]} == {7 * 86_400_000}


@pytest.mark.parametrize("table", ["bank", "acme"])
def test_an_announcement_that_expires_too_late_is_refused(tmp_path: Path, table: str) -> None:
    """Its callback may be due until then, and receipts do not live as long. The sender reads its own field's name."""
    limits = "[webhooks.bank.jobs.limits]\nmax_expiry_days = 2\n[ecs.acme.limits]\nmax_expiry_days = 2\n"
    hosts = '[ecs.acme.hosts]\ninput = ["a.example"]\nresult = ["a.example"]\ncallback = ["a.example"]\n'
    settings = loaded(tmp_path, BANK + ECS.replace("bank", "acme") + limits + hosts)
    now = datetime(2026, 1, 21, 12, tzinfo=UTC)
    webhooks = {one.integration: one for one in open_webhooks(settings, clock=lambda: now)}

    def request(expiry: str) -> WebhookRequest:
        body = ORDER.replace(b"2026-01-21T13:00:00Z", expiry.encode()) if table == "bank" else ecs_body(expiry)
        return WebhookRequest(path="", headers=(), body=body)

    assert webhooks[table].source.identify(request("2026-01-23T12:00:00Z")).topic is Topic.BATCH_REQUESTED
    for late in ("2026-01-23T12:00:01Z", "2199-12-31T23:59:59Z"):
        with pytest.raises(InvalidBody) as caught:
            webhooks[table].source.identify(request(late))
        (finding,) = caught.value.findings
        assert (finding.field, finding.rule) == ("until" if table == "bank" else "expires_at", "too_late")
        assert finding.remedy == "Send a time at most 2 days ahead, or ask the receiver for a higher limit"
        assert caught.value.id is not None


def test_a_compressed_announcement_is_refused(tmp_path: Path) -> None:
    """Stages read it as it was received."""
    (webhook,) = open_webhooks(loaded(tmp_path, BANK))
    with pytest.raises(InvalidBody) as caught:
        webhook.source.identify(WebhookRequest("", (), ORDER, encoding="gzip"))
    assert [one.rule for one in caught.value.findings] == ["content_encoding"]


def test_what_the_partner_cannot_read_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage could only dead-letter it."""
    settings = loaded(tmp_path, BANK)
    (webhook,) = open_webhooks(settings)
    job = sys.modules["bank_partner"].JobAnnouncement
    monkeypatch.setattr(
        sys.modules["bank_partner"].BankPartner, "decode", lambda _self, _value: job.model_validate({"job_guid": 1})
    )
    with pytest.raises(InvalidBody) as caught:
        webhook.source.identify(WebhookRequest(path="", headers=(), body=ORDER))
    assert "expires_at" in {finding.field for finding in caught.value.findings}


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('partner = "example-bank"', 'partner = "nobody"', "webhooks.bank.jobs.partner: There is no partner 'nobody'."),
        ("report_url", "url", "webhooks.bank.jobs.options.report_url: is missing"),
        ('partner = "example-bank"', "", "webhooks.bank.jobs.partner: is missing"),
    ],
)
def test_what_a_partner_refuses_is_named_by_its_key(tmp_path: Path, before: str, after: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, BANK.replace(before, after, 1)).job_integrations()
    assert caught.value.problems[0].startswith(problem)


def test_two_integrations_with_jobs_never_share_a_name(tmp_path: Path) -> None:
    """It is part of every job's key."""
    with pytest.raises(ConfigError, match=r"webhooks\.bank\.jobs: ecs\.bank also has jobs under this name"):
        loaded(tmp_path, BANK + ECS)


def test_the_review_looks_at_its_processor_and_hosts(tmp_path: Path) -> None:
    text = BANK.replace('input = ["bank.example"]', "input = []") + '[webhooks.bank.jobs.processor]\nname = "nobody"\n'
    found = review(loaded(tmp_path, text), now=datetime(2026, 1, 1, tzinfo=UTC))
    assert any(problem.startswith("webhooks.bank.jobs.processor: ") for problem in found.problems)
    assert any(warning.startswith("webhooks.bank.jobs.hosts.input: ") for warning in found.warnings)
