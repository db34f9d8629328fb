"""The examples are settings that load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.settings import Settings, load_settings, review
from pipeline.store import LocalSettings, S3Settings

EXAMPLES = Path(__file__).parents[3] / "examples"
SECRETS = ("acme-webhook", "acme-token", "kafka-password", "kafka-ca.pem", "s3-key-id", "s3-secret-key")


def example(name: str, folder: Path) -> Settings:
    shutil.copy(EXAMPLES / name, folder / name)
    (folder / "secrets").mkdir()
    for secret in SECRETS:
        path = folder / "secrets" / secret
        path.write_text(f"synthetic {secret}\n")
        path.chmod(0o600)
    return load_settings(folder / name, {}, warn=pytest.fail)


def test_external_names_servers_of_the_readers_own(tmp_path: Path) -> None:
    settings = example("external.toml", tmp_path)
    assert isinstance(settings.store, S3Settings)
    assert settings.cluster.protocol == "SASL_SSL"
    found = review(settings)
    assert (found.problems, found.warnings) == ((), ())


def test_every_line_of_external_that_holds_a_readers_value_says_so() -> None:
    unmarked = [
        line
        for line in (EXAMPLES / "external.toml").read_text("utf-8").splitlines()
        if ("example.com" in line or "secrets/" in line or "amazonaws" in line) and "CHANGE" not in line
    ]
    assert unmarked == []


def test_the_settings_for_trying_need_no_server(tmp_path: Path) -> None:
    settings = example("pipeline.toml", tmp_path)
    assert settings.store == LocalSettings(path=tmp_path / "store")
    assert review(settings).problems == ()
