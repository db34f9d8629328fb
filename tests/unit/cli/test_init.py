"""`pipeline init`: a settings file to start from, and `integration new webhook`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from support.command_line import Run

from pipeline.cli.integration import SENDERS
from pipeline.settings import load_settings
from pipeline.settings.json_schema import FILE_NAME, FIRST_LINE


def _private_file(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def test_ecs_and_weavr_on_this_machine(empty: Path, run: Run) -> None:
    """Once the partners' own secrets are in their files, the settings are right."""
    result = run("init", "try", "--sender", "ecs", "--sender", "weavr")
    assert result.exit_code == 0
    assert result.stdout.endswith("\nNext command: pipeline --config try/pipeline.toml config check\n")
    file = empty / "try" / "pipeline.toml"
    assert file.read_text().startswith(FIRST_LINE)
    Draft7Validator.check_schema(json.loads(file.with_name(FILE_NAME).read_text()))
    _private_file(empty / "try" / "secrets" / "acme-weavr-key", "synthetic-api-key-1")
    settings = load_settings(file, {})
    assert (set(settings.ecs), set(settings.weavr), settings.kafka) == ({"acme"}, {"acme"}, None)
    assert settings.store.kind == "local"
    assert run("--config", "try/pipeline.toml", "config", "check").exit_code == 0


def test_kafka_and_s3(empty: Path, run: Run) -> None:
    locations = ("--kafka", "kafka-0:9092,kafka-1:9092", "--store", "s3://card-jobs/eu/prod/")
    result = run("init", "--sender", "ecs", "--name", "acme-eu", *locations, "--json")
    sheet = json.loads(result.stdout)
    assert (sheet["settings_file"], [one["name"] for one in sheet["integrations"]]) == ("pipeline.toml", ["acme-eu"])
    shown = json.loads(run("config", "show", "--json").stdout)
    assert shown["kafka"]["bootstrap_servers"] == "kafka-0:9092,kafka-1:9092"
    assert (shown["store"]["kind"], shown["store"]["bucket"], shown["store"]["prefix"]) == (
        "s3",
        "card-jobs",
        "eu/prod",
    )
    assert [path.name for path in sorted((empty / "secrets").iterdir())] == ["acme-eu-webhook", "part-key"]


def test_a_file_that_is_there_stays(home: Path, run: Run) -> None:
    before = (home / "pipeline.toml").read_text()
    result = run("init", "--sender", "ecs")
    assert (result.exit_code, result.stderr.split(":")[1]) == (2, " settings_exist")
    assert (home / "pipeline.toml").read_text() == before
    assert not (home / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "sender_missing"),
        (("--sender", "ecs", "--name", "Acme"), "integration_name"),
        (("--sender", "ecs", "--kafka", "kafka-0"), "kafka_servers"),
        (("--sender", "ecs", "--store", "https://s3.example.com/b"), "store_option"),
        (("--sender", "ecs", "--store", "s3://key:secret@bucket"), "store_option"),
    ],
)
def test_a_wrong_option_is_refused_and_nothing_is_written(
    empty: Path, run: Run, arguments: tuple[str, ...], code: str
) -> None:
    result = run("init", *arguments)
    assert (result.exit_code, result.stderr.split(":")[:2]) == (2, ["error", f" {code}"])
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--sender", "github", "--sender", "github"), "integration_exists"),
        (("--sender", "ecs", "--sender", "github", "--sender", "stripe", "--name", "shop"), "integration_exists"),
        (("--sender", "weavr", "--sender", "ecs", "--name", "old"), "secret_exists"),
    ],
)
def test_senders_that_cannot_all_be_added_are_refused_and_nothing_is_written(
    empty: Path, run: Run, arguments: tuple[str, ...], code: str
) -> None:
    """With half a file, the corrected command would be refused too, because the file is there."""
    _private_file(empty / "secrets" / "old-webhook", "of another day")
    result = run("init", *arguments)
    assert (result.exit_code, result.stderr.split(":")[:2]) == (2, ["error", f" {code}"])
    assert [path.name for path in empty.rglob("*")] == ["secrets", "old-webhook"]
    assert (empty / "secrets" / "old-webhook").read_text() == "of another day"


def test_two_senders_of_one_name_have_a_secret_each(empty: Path, run: Run) -> None:
    """One that knows the other's secret could sign its webhooks."""
    result = run("init", "--sender", "ecs", "--sender", "github", "--name", "acme", "--json")
    ecs, github = json.loads(result.stdout)["integrations"]
    assert ecs["secret_file"] != github["secret_file"]
    assert not (empty / github["secret_file"]).exists()


def test_it_asks_on_a_terminal(empty: Path) -> None:
    """A person who types `pipeline init` and answers; an unknown sender is asked for again."""
    ours, theirs = pty.openpty()
    os.write(ours, b"gitlab\nweavr, github\n\n\n")
    command = [str(Path(sys.executable).with_name("pipeline")), "init"]
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, cwd=empty, timeout=60, check=True)
    os.close(ours)
    os.close(theirs)
    assert "'gitlab' is not one of the senders above" in done.stdout
    settings = (empty / "pipeline.toml").read_text()
    assert "[weavr.acme]" in settings
    assert "[webhooks.github]" in settings


@pytest.mark.parametrize("sender", SENDERS)
def test_every_sender_gets_settings_that_load(empty: Path, run: Run, sender: str) -> None:
    result = run("integration", "new", "webhook", "shop", "--sender", sender, "--new-secret", "--json")
    assert json.loads(result.stdout) == {
        "name": "shop",
        "sender": sender,
        "webhook_url": "https://YOUR-HOST/webhooks/sources/shop",
        "secret_file": "secrets/shop-source",
        "secret": None,
        "topic": "webhook-events.shop",
        "settings_file": "pipeline.toml",
    }
    settings = load_settings(empty / "pipeline.toml", {}, unread=lambda _key: None)
    settings.webhooks["shop"].kind_with_options()


def test_the_sheet_of_a_sender_says_where_its_secret_belongs(empty: Path, run: Run) -> None:
    output = run("integration", "new", "webhook", "shop", "--sender", "stripe").stdout
    assert "Webhook URL  https://YOUR-HOST/webhooks/sources/shop\n" in output
    assert "cat > secrets/shop-source" in output
    assert not (empty / "secrets").exists()


def test_a_new_secret_is_shown_only_when_asked_for(empty: Path, run: Run) -> None:
    hidden = run("integration", "new", "webhook", "repo", "--sender", "github", "--new-secret").stdout
    secret = (empty / "secrets" / "repo-source").read_text()
    assert secret not in hidden
    assert "Secret       the content of secrets/repo-source\n" in hidden
    shown = run("integration", "new", "webhook", "r2", "--sender", "github", "--new-secret", "--show-secret").stdout
    assert (empty / "secrets" / "r2-source").read_text() in shown


def test_a_settings_file_of_the_sandbox_names_its_schema(empty: Path, run: Run) -> None:
    assert run("sandbox", "send-events", "--write-settings", "acme").exit_code == 0
    assert (empty / "acme" / "pipeline.toml").read_text().startswith(FIRST_LINE)
    assert (empty / "acme" / FILE_NAME).exists()
