"""What the pages show works: settings load, names exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from prometheus_client import generate_latest
from support.command_line import Run
from support.paths import ROOT

from pipeline.cli.root import cli
from pipeline.jobs.part_encryption import new_part_key
from pipeline.observability import Metrics, SubscriberMetrics

RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text("utf-8")
CODE = "\n".join(file.read_text("utf-8") for file in (ROOT / "src").rglob("*.py"))


def put_secrets(toml: str, folder: Path) -> None:
    """Make every file that settings name."""
    for name in re.findall(r'"(secrets/[^"]+)"', toml):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(new_part_key() if name.endswith("part-key") else "0123456789abcdef0123456789abcdef")
        file.chmod(0o600)


def test_the_configuration_of_the_readme_is_one(empty: Path, run: Run) -> None:
    found = re.search(r"```toml\n# pipeline.toml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    (empty / "pipeline.toml").write_text(found[1])
    put_secrets(found[1], empty)
    result = run("config", "check", "--json")
    assert json.loads(result.stdout) == {
        "ok": True,
        "file": "pipeline.toml",
        "problems": [],
        "warnings": [],
        "unchecked": [],
    }


@pytest.mark.parametrize(
    "page", ["README.md", *(str(file.relative_to(ROOT)) for file in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_every_command_of_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for words in re.findall(r"(?:^|`)pipeline(?: --config \S+)?((?: [a-z][a-z-]*)+)", text, re.MULTILINE):
        command: click.Command = cli
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"pipeline{words}"
            command = found


def test_every_metric_of_the_runbook_exists() -> None:
    exposed = "".join(generate_latest(metrics.registry).decode() for metrics in (Metrics(), SubscriberMetrics()))
    for name in set(re.findall(r"pipeline_[a-z_]+", RUNBOOK)):
        family = name.removesuffix("_count")
        assert f"# TYPE {family} " in exposed, name


def test_the_code_has_every_name_of_the_runbook() -> None:
    """Log actions, codes, checks: an operator who looks for one at night must find it."""
    for name in set(re.findall(r"`([a-z]+_[a-z_]+)`", RUNBOOK)) - set(re.findall(r"pipeline_[a-z_]+", RUNBOOK)):
        assert name.startswith("dlq_") or name in CODE, name


def test_each_entry_of_the_runbook_says_what_you_see_why_what_to_do_and_when_it_is_over() -> None:
    entries = re.findall(r"^(##+) (.+)\n((?:(?!##).*\n)*)", RUNBOOK, re.MULTILINE)
    outer = {"Where to look", "A subscriber", "Alarms of the ingress: events may be lost", "Audit"}
    for level, title, text in entries:
        if level == "##" and title in outer:
            continue
        missing = [label for label in ("You see", "Why", "Do", "Over when") if f"- **{label}" not in text]
        assert not missing, title
