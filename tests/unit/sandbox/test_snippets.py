"""The settings blocks that make a pipeline talk to the sandbox."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.sandbox_world import Start

from pipeline.sandbox import HmacScheme, Sandbox, SharedSecretScheme, cards_options, settings_snippet, weavr_snippet
from pipeline.sandbox.weavr import SendPlan, SigningKeys
from pipeline.settings import EcsIntegration, load_settings
from pipeline.webhooks.sources import WeavrVerifier, WebhookRequest
from pipeline.webhooks.verification import SignatureRefused, StandardWebhooksSettings


def loaded(tmp_path: Path, toml: str) -> EcsIntegration:
    file = tmp_path / "pipeline.toml"
    file.write_text(toml, encoding="utf-8")
    return load_settings(file, {}).ecs["acme"]


def signed(scheme: HmacScheme) -> tuple[str, ...]:
    if scheme.timestamp_header is None:
        return ("body",)
    return ("timestamp", f"text:{scheme.separator}", "body") if scheme.separator else ("timestamp", "body")


@pytest.mark.parametrize(
    "scheme",
    [
        SharedSecretScheme(prefix="Bearer "),
        HmacScheme(hash="sha512", encoding="base64"),
        HmacScheme(timestamp_header="X-Time"),
        HmacScheme(timestamp_header="X-Time", separator=""),
    ],
)
async def test_the_pipeline_accepts_the_block_of_any_scheme(start: Start, tmp_path: Path, scheme: Any) -> None:
    """Header, prefix, hash and encoding agree on both sides."""
    sandbox = await start(scheme=scheme)
    snippet = settings_snippet(sandbox, "acme", folder=tmp_path / "secrets")
    settings = loaded(tmp_path, snippet.toml)
    assert not isinstance(settings.webhook, StandardWebhooksSettings)
    assert (settings.webhook.header, settings.webhook.prefix) == (scheme.header, scheme.prefix)
    secret = sandbox.settings.webhook_secret.get_secret_value()
    assert settings.webhook_secrets()[0].value.get_secret_value() == secret
    if isinstance(scheme, HmacScheme):
        assert settings.webhook.scheme == "hmac"
        assert (settings.webhook.hash, settings.webhook.encoding) == (scheme.hash, scheme.encoding)
        assert settings.webhook.signed == signed(scheme)
        assert settings.webhook.timestamp == (scheme.timestamp_header and f"header:{scheme.timestamp_header}")


async def test_secrets_are_in_files_of_their_own(sandbox: Sandbox, tmp_path: Path) -> None:
    """Mode 0600, replaced on the next call, never in the block."""
    for _ in range(2):
        snippet = settings_snippet(sandbox, "acme", folder=tmp_path / "secrets")
    for path in (snippet.webhook_secret_file, snippet.token_file, snippet.card_api_token_file):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() not in snippet.toml
    assert snippet.token_file.read_text() == sandbox.token()


async def test_tables_can_be_added_and_oauth_chosen(sandbox: Sandbox, tmp_path: Path) -> None:
    """Limits, policies and whatever else an integration has; values merge into the block's own tables."""
    snippet = settings_snippet(
        sandbox,
        "acme",
        folder=tmp_path / "secrets",
        oauth=True,
        tables={"limits": {"chunk_records": 7}, "processor": {"concurrency": 3}, "csv": {"drop_columns": ["cvv"]}},
    )
    settings = loaded(tmp_path, snippet.toml)
    assert settings.limits.chunk_records == 7
    assert (settings.processor.name, settings.processor.concurrency) == ("validate", 3)
    assert settings.csv.drop_columns == ("cvv",)
    assert settings.callback.oauth is not None
    assert settings.callback.oauth.token_url == sandbox.token_url


async def test_the_http_processor_gets_the_card_api(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its options load as they are."""
    options = cards_options(sandbox, "acme", folder=tmp_path / "secrets")
    snippet = settings_snippet(sandbox, "acme", folder=tmp_path / "secrets", processor="http", options=options)
    assert tomllib.loads(snippet.toml)["ecs"]["acme"]["processor"]["options"] == options
    assert loaded(tmp_path, snippet.toml).processor.options == options


NOW = datetime(2026, 1, 22, 12, tzinfo=UTC)


def verifier(folder: Path) -> tuple[WeavrVerifier, SigningKeys]:
    """The pipeline's verifier by the written settings, and the written keys."""
    snippet = weavr_snippet("acme", folder=folder / "secrets")
    file = folder / "pipeline.toml"
    file.write_text(snippet.toml, "utf-8")
    settings = load_settings(file, {}).weavr["acme"]
    keys = SigningKeys(snippet.key_file.read_bytes(), snippet.next_key_file.read_bytes(), rotate_at=32)
    return WeavrVerifier(settings, settings.webhook_secrets()), keys


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_the_pipeline_verifies_all_that_is_sent_by_both_keys_and_without(tmp_path: Path, client: str) -> None:
    found, keys = verifier(tmp_path)
    for event in SendPlan(count=300).events("acme", keys, now_ms=round(NOW.timestamp() * 1000)):
        headers = tuple((name, value.encode()) for name, value in event.headers)
        assert found.verify(WebhookRequest(event.path, headers, event.body, client), NOW).path == event.path


def test_what_is_not_signed_is_taken_from_this_machine_alone(tmp_path: Path) -> None:
    found, _ = verifier(tmp_path)
    headers = (("published-timestamp", str(round(NOW.timestamp() * 1000)).encode()),)
    with pytest.raises(SignatureRefused):
        found.verify(WebhookRequest("/bulk_process_end/watch", headers, b"{}", "192.0.2.1"), NOW)


def test_keys_are_new_each_time_and_for_their_owner_alone(tmp_path: Path) -> None:
    snippets = [weavr_snippet("acme", folder=tmp_path) for _ in range(2)]
    assert snippets[0].key_file == snippets[1].key_file
    keys = {snippets[1].key_file.read_text(), snippets[1].next_key_file.read_text()}
    assert len(keys) == 2
    assert not any(key in snippets[1].toml for key in keys)
    assert snippets[1].key_file.stat().st_mode & 0o777 == 0o600
