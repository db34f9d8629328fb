"""The JSON Schema of the settings file agrees with what the loader takes."""

from __future__ import annotations

import re
import tomllib
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft7Validator
from support.paths import ROOT

from pipeline.settings.json_schema import settings_schema

SCHEMA = settings_schema()
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
README_SETTINGS = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def problems(text: str) -> list[str]:
    """Return the keys and rules that a settings file breaks."""
    document = _as_editors_see_it(tomllib.loads(text))
    found = Draft7Validator(SCHEMA).iter_errors(document)
    return sorted(f"{'.'.join(map(str, one.absolute_path))}: {one.validator}" for one in found)


def _as_editors_see_it(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_editors_see_it(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_editors_see_it(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_it_accepts_the_examples(path: Any) -> None:
    assert problems(path.read_text("utf-8")) == []


@pytest.mark.parametrize("text", README_SETTINGS)
def test_it_accepts_the_settings_of_the_readme(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[kafkas]\n", ": additionalProperties"),
        ("[kafka]\nbootstrap_server = 'a:1'\n", "kafka: additionalProperties"),
        ("[ingress]\nport = 'http'\n", "ingress.port: type"),
        ("[ingress]\nport = 70000\n", "ingress.port: maximum"),
        ("[logging]\nformat = 'xml'\n", "logging.format: enum"),
        ("[weavr.acme]\n", "weavr.acme: required"),
        ("[weavr.acme]\nname = 'acme'\nsecrets = []\n", "weavr.acme: additionalProperties"),
        ("[weavr.acme]\nrequests_per_second = 0\nsecrets = []\n", "weavr.acme.requests_per_second: minimum"),
    ],
)
def test_it_names_what_the_loader_refuses(text: str, wrong: str) -> None:
    assert wrong in problems(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("password_file = 'secrets/kafka'\n", []),
        ("password = 'planted'\n", []),
        ("passwords_file = 'secrets/kafka'\n", ["kafka.sasl: additionalProperties"]),
    ],
)
def test_a_secret_may_be_written_as_the_name_of_its_file(text: str, wrong: str | list[str]) -> None:
    sasl = "[kafka]\nbootstrap_servers = 'a:1'\n[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'a'\n"
    assert problems(sasl + text) == wrong


def test_each_key_says_what_it_means() -> None:
    """Editors show it beside the key."""
    silent = [
        f"{name}.{key}"
        for name, table in {"": SCHEMA, **SCHEMA["definitions"]}.items()
        for key, one in table.get("properties", {}).items()
        if not one.get("description")
    ]
    assert silent == []
