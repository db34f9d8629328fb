"""The settings block that makes a pipeline take this Weavr's events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.sandbox.weavr import SendPlan, SigningKeys, weavr_snippet
from pipeline.settings import load_settings
from pipeline.webhooks.sources import Delivery, WeavrVerifier
from pipeline.webhooks.verification import SignatureRefused

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
        assert found.verify(Delivery(event.path, headers, event.body, client), NOW).path == event.path


def test_what_is_not_signed_is_taken_from_this_machine_alone(tmp_path: Path) -> None:
    found, _ = verifier(tmp_path)
    headers = (("published-timestamp", str(round(NOW.timestamp() * 1000)).encode()),)
    with pytest.raises(SignatureRefused):
        found.verify(Delivery("/bulk_process_end/watch", headers, b"{}", "192.0.2.1"), NOW)


def test_keys_are_new_each_time_and_for_their_owner_alone(tmp_path: Path) -> None:
    snippets = [weavr_snippet("acme", folder=tmp_path) for _ in range(2)]
    assert snippets[0].key_file == snippets[1].key_file
    keys = {snippets[1].key_file.read_text(), snippets[1].next_key_file.read_text()}
    assert len(keys) == 2
    assert not any(key in snippets[1].toml for key in keys)
    assert snippets[1].key_file.stat().st_mode & 0o777 == 0o600
