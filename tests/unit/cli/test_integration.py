"""`pipeline integration new`: ecs and weavr."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from support.command_line import Run

from pipeline.jobs.part_encryption import open_part_cipher
from pipeline.settings import load_settings


def test_it_writes_settings_that_load_and_a_secret_of_mode_0600(empty: Path, run: Run) -> None:
    result = run("integration", "new", "ecs", "acme", "--base-url", "https://hooks.example.com/", "--json")
    assert result.exit_code == 0
    sheet = json.loads(result.stdout)
    assert sheet == {
        "name": "acme",
        "partner_guid": sheet["partner_guid"],
        "webhook_url": "https://hooks.example.com/webhooks/ecs/acme",
        "scheme": "shared-secret",
        "header": "X-Webhook-Secret",
        "secret_file": "secrets/acme-webhook",
        "secret": None,
        "settings_file": "pipeline.toml",
    }
    secret = empty / "secrets" / "acme-webhook"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.parent.stat().st_mode & 0o777 == 0o700
    acme = load_settings(empty / "pipeline.toml", {}).ecs["acme"]
    assert str(acme.partner_guid) == sheet["partner_guid"]
    assert len(acme.webhook_secrets()[0].value.get_secret_value()) == 43
    assert run("config", "check").exit_code == 0


def test_the_sheet_says_what_ecs_must_know_and_not_the_secret(empty: Path, run: Run) -> None:
    guid = "11111111-2222-4333-8444-555555555555"
    result = run("integration", "new", "ecs", "acme", "--partner-guid", guid)
    secret = (empty / "secrets" / "acme-webhook").read_text()
    assert secret not in result.stdout
    for text in (
        "Name of integration  acme",
        f"Partner GUID         {guid}",
        "Webhook URL          https://YOUR-HOST/webhooks/ecs/acme",
        "Webhook secret       in secrets/acme-webhook; hand it over through a secure channel",
        "Sent in              header X-Webhook-Secret (shared-secret)",
    ):
        assert text in result.stdout


def test_the_secret_is_shown_when_asked_for(empty: Path, run: Run) -> None:
    result = run("integration", "new", "ecs", "acme", "--show-secret")
    assert f"Webhook secret       {(empty / 'secrets' / 'acme-webhook').read_text()}\n" in result.stdout


def test_hosts_and_scheme_are_taken_over(empty: Path, run: Run) -> None:
    hosts = ("--input-host", "a.example", "--input-host", "b.example", "--result-host", "a.example")
    run("integration", "new", "ecs", "acme", "--scheme", "hmac", *hosts, "--callback-host", "c.example")
    acme = load_settings(empty / "pipeline.toml", {}).ecs["acme"]
    assert acme.webhook.scheme == "hmac"
    assert acme.hosts.input == ("a.example", "b.example")
    assert acme.hosts.callback == ("c.example",)


@pytest.mark.parametrize("before", ["[logging]\nlevel = 'info'", "[logging]\nlevel = 'info'\n"])
def test_what_the_file_has_stays(empty: Path, run: Run, before: str) -> None:
    (empty / "my.toml").write_text(before)
    assert run("--config", "my.toml", "integration", "new", "ecs", "acme").exit_code == 0
    text = (empty / "my.toml").read_text()
    assert text.startswith(before)
    assert set(tomllib.loads(text)) == {"logging", "parts", "ecs"}


def test_a_second_integration_joins_the_first(empty: Path, run: Run) -> None:
    run("integration", "new", "ecs", "acme")
    assert run("integration", "new", "ecs", "other-1").exit_code == 0
    settings = load_settings(empty / "pipeline.toml", {})
    assert set(settings.ecs) == {"acme", "other-1"}
    (key,) = settings.parts.keys  # of the first; the second one's parts are encrypted with it too
    assert key.file.stat().st_mode & 0o777 == 0o600
    assert open_part_cipher(settings.parts).encrypts


def test_a_known_name_is_refused_and_nothing_changes(empty: Path, run: Run) -> None:
    run("integration", "new", "ecs", "acme")
    before = (empty / "pipeline.toml").read_text(), (empty / "secrets" / "acme-webhook").read_text()
    result = run("integration", "new", "ecs", "acme")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: integration_exists: pipeline.toml already has [ecs.acme]; choose another name or edit that table\n"
    )
    assert before == ((empty / "pipeline.toml").read_text(), (empty / "secrets" / "acme-webhook").read_text())


def test_a_secret_is_never_overwritten(empty: Path, run: Run) -> None:
    (empty / "secrets").mkdir()
    (empty / "secrets" / "acme-webhook").write_text("old")
    result = run("integration", "new", "ecs", "acme")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: secret_exists: secrets/acme-webhook already exists, and is never overwritten; "
        "move it or choose another name\n"
    )
    assert (empty / "secrets" / "acme-webhook").read_text() == "old"
    assert not (empty / "pipeline.toml").exists()


@pytest.mark.parametrize("name", ["Acme", "-a", "a b", "a" * 64])
def test_a_wrong_name_is_refused(empty: Path, run: Run, name: str) -> None:
    result = run("integration", "new", "ecs", "--", name)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: integration_name: {name!r} is not a valid name; write 1 to 63 lower case letters, digits and dashes\n"
    )
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"), [(b"[broken", "is not TOML: "), (b"\xff", "is not TOML: "), (None, "cannot be read (")]
)
def test_a_file_that_cannot_be_read_is_left_alone(empty: Path, run: Run, content: bytes | None, message: str) -> None:
    file = empty / "pipeline.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    result = run("integration", "new", "ecs", "acme")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: config_unreadable: pipeline.toml: {message}")
    assert not (empty / "secrets").exists()


def test_weavr_gets_settings_that_wait_for_its_key(empty: Path, run: Run) -> None:
    result = run("integration", "new", "weavr", "acme", "--base-url", "https://hooks.example.com/", "--json")
    assert json.loads(result.stdout) == {
        "name": "acme",
        "webhook_url": "https://hooks.example.com/webhooks/weavr/acme",
        "key_file": "secrets/acme-weavr-key",
        "path_secret_file": None,
        "settings_file": "pipeline.toml",
    }
    assert "weavr.acme.secrets.0.file: no file exists" in run("config", "check").stderr
    (empty / "secrets").mkdir()
    (empty / "secrets" / "acme-weavr-key").write_text("synthetic-api-key-1\n")
    (empty / "secrets" / "acme-weavr-key").chmod(0o600)
    checked = run("config", "check")
    assert checked.exit_code == 0
    assert "weavr.acme.unsigned_paths: lacks /bulk_process_end/watch" in checked.stderr


def test_the_sheet_for_weavr_says_which_key_and_where(empty: Path, run: Run) -> None:
    del empty
    output = run("integration", "new", "weavr", "acme").stdout
    assert "Webhook URL  https://YOUR-HOST/webhooks/weavr/acme\n" in output
    assert "API key of your OLDEST API client" in output
    assert "cat > secrets/acme-weavr-key" in output


def test_a_secret_in_the_path_protects_what_weavr_does_not_sign(empty: Path, run: Run) -> None:
    """It is printed only when asked for."""
    arguments = ("integration", "new", "weavr", "acme", "--path-secret", "--source-address", "192.0.2.0/24")
    output = run(*arguments).stdout
    file = empty / "secrets" / "acme-weavr-path"
    secret = file.read_text()
    assert (len(secret), file.stat().st_mode & 0o777) == (43, 0o600)
    assert secret not in output
    assert "SECRET-OF-THE-PATH = the content of secrets/acme-weavr-path" in output
    (empty / "secrets" / "acme-weavr-key").write_text("synthetic-api-key-1")
    acme = load_settings(empty / "pipeline.toml", {}).weavr["acme"]
    assert acme.path_secret is not None
    assert acme.path_secret.get_secret_value() == secret
    (rule,) = acme.unsigned_paths
    assert (rule.path, rule.require_path_secret) == ("/bulk_process_end/watch", True)
    assert [str(network) for network in rule.source_addresses] == ["192.0.2.0/24"]


def test_the_url_is_shown_with_its_secret_when_asked_for(empty: Path, run: Run) -> None:
    output = run("integration", "new", "weavr", "acme", "--path-secret", "--show-secret").stdout
    assert f"/webhooks/weavr/acme/{(empty / 'secrets' / 'acme-weavr-path').read_text()}\n" in output


def test_both_partners_may_have_one_name(empty: Path, run: Run) -> None:
    run("integration", "new", "ecs", "acme")
    assert run("integration", "new", "weavr", "acme").exit_code == 0
    assert run("integration", "new", "weavr", "acme").stderr == (
        "error: integration_exists: pipeline.toml already has [weavr.acme]; choose another name or edit that table\n"
    )
    assert (empty / "secrets" / "acme-webhook").exists()


def test_an_address_that_is_no_network_is_refused(empty: Path, run: Run) -> None:
    result = run("integration", "new", "weavr", "acme", "--source-address", "192.0.2.7/24")
    assert (result.exit_code, result.stderr.split(":")[1]) == (2, " source_address")
    assert list(empty.iterdir()) == []
