"""``schemas/asyncapi.json``, read by AsyncAPI's own parser, and compared with the table of topics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from support.asyncapi_parser import asyncapi_parser, parse
from support.paths import ROOT

from pipeline.contracts import TOPICS, TopicSpec
from tools.contract_table import CONTRACTS

__all__ = ["asyncapi_parser"]

SCHEMAS: Final = ROOT / "schemas"
DOCUMENT: Final[dict[str, Any]] = json.loads((SCHEMAS / "asyncapi.json").read_text("utf-8"))
MADE_BY_CONFIGURATION: Final = 2
WARNING: Final = 1
"""Severities up to it are errors and warnings; the rest is advice, such as to take a newer AsyncAPI."""


def test_the_official_parser_has_nothing_against_it(asyncapi_parser: Path) -> None:
    found = parse(asyncapi_parser, SCHEMAS / "asyncapi.json")
    assert [one for one in found["diagnostics"] if one["severity"] <= WARNING] == []
    topics = len(TOPICS) + MADE_BY_CONFIGURATION
    messages = sum(contract.topic is not None for contract in CONTRACTS) + 1
    assert found["counts"] == {"channels": topics, "messages": messages, "operations": 2 * topics}


def test_the_official_parser_convicts_a_broken_one(asyncapi_parser: Path, tmp_path: Path) -> None:
    broken = {name: value for name, value in DOCUMENT.items() if name != "info"}
    (tmp_path / "asyncapi.json").write_text(json.dumps(broken))
    found = parse(asyncapi_parser, tmp_path / "asyncapi.json")
    assert found["counts"] is None
    assert {one["code"] for one in found["diagnostics"]} >= {"invalid-ref", "asyncapi-document-resolved"}


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.topic)
def test_a_channel_says_how_its_topic_is_kept(spec: TopicSpec) -> None:
    channel = DOCUMENT["channels"][spec.topic]
    kafka = channel["bindings"]["kafka"]
    assert channel["address"] == spec.topic
    assert (kafka["partitions"], kafka["topicConfiguration"]["retention.ms"]) == (spec.partitions, spec.retention_ms)
    assert ("sensitive" in [tag["name"] for tag in channel["tags"]]) == spec.sensitive


def test_each_topic_is_published_and_read() -> None:
    operations = DOCUMENT["operations"]
    assert {f"{verb}.{spec.topic}" for spec in TOPICS for verb in ("publish", "subscribe")} <= {*operations}
    assert {operations[name]["action"] for name in operations if name.startswith("publish.")} == {"send"}
    assert {operations[name]["action"] for name in operations if name.startswith("subscribe.")} == {"receive"}
