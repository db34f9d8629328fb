"""`pipeline config`, as its user sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.command_line import Run

from pipeline.cli.config import masked
from pipeline.settings import Settings


def test_check_says_ok_and_names_the_file(home: Path, run: Run) -> None:
    del home
    result = run("config", "check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ok: pipeline.toml\n", "")


def test_check_without_a_file_checks_the_defaults(empty: Path, run: Run) -> None:
    del empty
    result = run("config", "check")
    assert result.exit_code == 0
    assert result.stdout == "ok: defaults, since there is no settings file\n"
    assert result.stderr.startswith("warning: kafka: is missing; ")


def test_check_prints_one_line_per_problem_and_ends_with_2(home: Path, run: Run) -> None:
    (home / "webhook").unlink()
    (home / "pipeline.toml").write_text((home / "pipeline.toml").read_text() + "\n[logging]\nlvl = 1\n")
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        (
            "error: config_invalid: ecs.acme.webhook.secrets.0.file: no file exists at this path; create "
            "it with only the secret in it: (umask 077; printf %s SECRET > FILE); relative paths start from "
            f"{home}"
        ),
        "error: config_invalid: logging.lvl: is not a setting; did you mean level?",
    ]


def test_check_finds_what_no_single_key_shows(home: Path, run: Run) -> None:
    (home / "pipeline.toml").write_text((home / "pipeline.toml").read_text() + "\n[retention]\nreceipts_days = 7\n")
    result = run("config", "check", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "ok": False,
        "file": "pipeline.toml",
        "problems": [
            (
                "retention.receipts_days: 7 days is not longer than the 7 days that audit.events keeps a record, "
                "so a job could run twice; write e.g. receipts_days = 8"
            ),
            (
                "ecs.acme.policies.callback_retry_seconds: a job's last callback may come 14 days "
                "(limits.max_expiry_days) and 1 days after its announcement, and its record again for 3 days, but the "
                "store keeps receipts for 7 days only; lower one of the two, or write e.g. retention.receipts_days = 19"
            ),
        ],
        "warnings": [],
        "unchecked": [],
    }


def test_check_warns_of_readable_secrets(home: Path, run: Run) -> None:
    (home / "webhook").chmod(0o644)
    result = run("config", "check")
    assert result.exit_code == 0
    assert result.stderr == (
        f"warning: ecs.acme.webhook.secrets.0.file: {home}/webhook can be read by every user; "
        f"run: chmod 600 {home}/webhook\n"
    )


def test_check_refuses_what_a_start_refuses(home: Path, run: Run) -> None:
    """The settings are right by themselves; only the code that uses them notices."""
    (home / "key").write_text("planted-0123456789")
    (home / "key").chmod(0o600)
    (home / "pipeline.toml").write_text(
        (home / "pipeline.toml").read_text()
        + """
[audit]
signing_key_file = "key"
[webhooks.shop]
source = "standard-webhooks"
secrets = [{ file = "key" }]
[kafka.tls]
ca_file = "nowhere"
"""
    )
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: config_invalid: webhooks.shop: The secret 'key' is not written in base64, as its scheme says",
        "error: config_invalid: kafka.tls.ca_file: cannot be used: No such file or directory",
        (
            "error: config_invalid: audit.signing_key: The audit log's private key must be an unencrypted "
            "Ed25519 key in PEM: openssl genpkey -algorithm ed25519 makes one"
        ),
    ]


def test_check_looks_into_tokens(home: Path, run: Run) -> None:
    (home / "token").write_text("planted 0123456789")
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: config_invalid: ecs.acme.callback.token_file: {home}/token must be one word of visible ASCII "
        "characters\n"
    )


def test_check_works_without_the_files_and_names_them(home: Path, run: Run) -> None:
    """In CI, for example, no secret is mounted."""
    (home / "webhook").unlink()
    (home / "token").unlink()
    assert run("config", "check").exit_code == 2
    result = run("config", "check", "--offline")
    assert (result.exit_code, result.stdout) == (0, "ok: pipeline.toml\n")
    unchecked = ["ecs.acme.webhook.secrets.0.file", "parts.keys.0.file", "ecs.acme.callback.token_file"]
    assert result.stderr.splitlines() == [f"unchecked: {key}: file not read (--offline)" for key in unchecked]
    assert json.loads(run("config", "check", "--offline", "--json").stdout)["unchecked"] == unchecked


def test_check_offline_still_names_problems(home: Path, run: Run) -> None:
    (home / "pipeline.toml").write_text((home / "pipeline.toml").read_text() + "\n[retention]\nreceipts_days = 7\n")
    assert run("config", "check", "--offline").exit_code == 2


def test_another_command_with_wrong_settings_ends_with_2(home: Path, run: Run) -> None:
    (home / "pipeline.toml").write_text("[logging]\nlvl = 1\n")
    result = run("config", "show")
    assert result.exit_code == 2
    assert result.stderr == "error: config_invalid: logging.lvl: is not a setting; did you mean level?\n"


def test_show_prints_every_setting_with_its_default(home: Path, run: Run) -> None:
    result = run("--config", str(home / "pipeline.toml"), "config", "show")
    lines = result.stdout.splitlines()
    assert 'kafka.bootstrap_servers = "127.0.0.1:1"' in lines
    assert "ecs.acme.limits.chunk_bytes = 1048576" in lines
    assert 'ecs.acme.hosts.input = ["files.example.com"]' in lines


def test_show_as_json(home: Path, run: Run) -> None:
    del home
    shown = json.loads(run("config", "show", "--json").stdout)
    assert shown["ecs"]["acme"]["webhook_path"] == "/webhooks/ecs/acme"


def test_show_masks_every_kind_of_secret(home: Path, run: Run) -> None:
    (home / "pipeline.toml").write_text(
        (home / "pipeline.toml").read_text()
        + """
[kafka.sasl]
mechanism = "PLAIN"
username = "me"
password = "planted-1"

[network]
proxy = "http://me:planted-2@proxy.example.com:3128"

[ecs.acme.processor]
options = { api_token = "planted-3", url = "https://me:planted-4@api.example.com", list = [{ password = "planted-5" }] }

[weavr.acme]
secrets = [{ file = "webhook" }]
path_secret = "planted-path-segment-6"

[webhooks.shop]
source = "hmac"
secrets = [{ file = "webhook" }]
options = { api_key = "planted-7" }
"""
    )
    for arguments in (("config", "show"), ("config", "show", "--json")):
        result = run(*arguments)
        assert result.exit_code == 0, result.stderr
        assert "planted" not in result.stdout
        assert "the-webhook-secret" not in result.stdout
        assert "https://***@api.example.com" in result.stdout


def test_masking_keeps_what_is_no_secret() -> None:
    assert masked(Settings())["ingress"]["port"] == 8080


def test_check_refuses_a_folder_where_stages_may_run_on_several_hosts(home: Path, run: Run) -> None:
    text = (home / "pipeline.toml").read_text()
    (home / "pipeline.toml").write_text(
        re.sub(r'bootstrap_servers = "[^"]*"', 'bootstrap_servers = "kafka-0:9092"', text)
    )
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error: config_invalid: store.path: is a folder of this host, but Kafka (kafka-0:9092) "
    )
