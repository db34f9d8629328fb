"""The examples are settings that load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.paths import ROOT

from pipeline.app import open_webhooks
from pipeline.settings import Settings, load_settings
from pipeline.settings.review import review
from pipeline.storage import LocalSettings, S3Settings

EXAMPLES = ROOT / "examples"
SECRETS = (
    *("acme-webhook", "acme-token", "part-key", "kafka-password", "kafka-ca.pem", "s3-key-id", "s3-secret-key"),
    *("acme-weavr-key", "acme-weavr-key-new", "acme-weavr-path", "github", "kyc"),
)


def example(name: str, folder: Path) -> Settings:
    shutil.copy(EXAMPLES / name, folder / name)
    (folder / "secrets").mkdir()
    for secret in SECRETS:
        path = folder / "secrets" / secret
        path.write_text(f"synthetic-secret-{secret}\n")
        path.chmod(0o600)
    return load_settings(folder / name, {}, warn=pytest.fail)


def test_external_names_servers_of_the_readers_own(tmp_path: Path) -> None:
    settings = example("external.toml", tmp_path)
    assert isinstance(settings.store, S3Settings)
    assert settings.cluster.protocol == "SASL_SSL"
    found = review(settings)
    assert (found.problems, found.warnings) == ((), ())


def test_weavr_and_other_senders_need_no_ecs(tmp_path: Path) -> None:
    settings = example("weavr.toml", tmp_path)
    assert [(source.kind, source.integration) for source in open_webhooks(settings)] == [
        ("weavr", "acme"),
        ("hmac", "code"),
        ("hmac", "kyc"),
    ]
    found = review(settings)
    assert (found.problems, found.warnings) == ((), ())


@pytest.mark.parametrize("name", ["external.toml", "weavr.toml"])
def test_every_line_that_holds_a_readers_value_says_so(name: str) -> None:
    unmarked = [
        line
        for line in (EXAMPLES / name).read_text("utf-8").splitlines()
        if ("example.com" in line or "secrets/" in line or "amazonaws" in line) and "CHANGE" not in line
    ]
    assert unmarked == []


def test_the_settings_for_trying_need_no_server(tmp_path: Path) -> None:
    settings = example("pipeline.toml", tmp_path)
    assert settings.store == LocalSettings(path=tmp_path / "store")
    assert review(settings).problems == ()
