"""The gate: what was released is kept, and what breaks is named with what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tools import compatibility, schemas

EVENT: dict[str, Any] = {
    "topic": "card-events.test",
    "key": ["{integration}/card/{id}"],
    "path": "/test/watch",
    "version": 1,
    "dataschema": "urn:card-pipeline:schema:weavr.test:v1",
    "schema": "events/weavr.test.v1.json",
}
TOPIC: dict[str, Any] = {"key": "card", "partitions": 3, "retention_ms": 1000, "sensitive": True}
INDEX: dict[str, Any] = {"events": {"weavr.test": EVENT}, "bodies": {}, "topics": {"card-events.test": TOPIC}}
HEADERS: dict[str, Any] = {"type": "object", "properties": {"ce_id": {"type": "string"}}, "required": []}
SCHEMA: dict[str, Any] = {
    "$id": EVENT["dataschema"],
    "type": "object",
    "properties": {"id": {"type": "string"}, "note": {"type": "string"}},
    "required": ["id"],
}


def files(
    schema: Mapping[str, Any] = SCHEMA, index: Mapping[str, Any] = INDEX, headers: Mapping[str, Any] = HEADERS
) -> dict[str, str]:
    """Generated files: one schema, its example, the index, the headers, and a page that is no contract."""
    return {
        "schemas/events/weavr.test.v1.json": schemas.text(schema),
        "schemas/examples/weavr.test.v1.json": schemas.text({"id": "1"}),
        "schemas/index.json": schemas.text(index),
        "schemas/asyncapi.json": schemas.text({"components": {"schemas": {"Headers": headers}}}),
        "schemas/openapi.json": "{}\n",
        "docs/reference/topics.md": "# Topics",
    }


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder with the contracts as they were released."""
    assert compatibility.release(tmp_path, files()) == []
    return tmp_path


def test_a_release_keeps_schemas_examples_and_index(released: Path) -> None:
    kept = sorted(str(path.relative_to(released)) for path in released.rglob("*") if path.is_file())
    assert kept == ["asyncapi.json", "events/weavr.test.v1.json", "examples/weavr.test.v1.json", "index.json"]


def test_what_did_not_change_breaks_nothing(released: Path) -> None:
    assert compatibility.findings(released, files()) == []


def test_the_first_release_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert compatibility.findings(tmp_path / "none", files()) == []


def test_a_finding_names_file_location_rule_and_remedy(released: Path) -> None:
    schema = deepcopy(SCHEMA)
    del schema["properties"]["note"]
    (line,) = compatibility.findings(released, files(schema))
    assert line == (
        "schemas/events/weavr.test.v1.json#/properties/note: field-removed: `note` is promised no more; "
        "keep it, optional; or publish a new version (docs/reference/contracts.md)"
    )


def test_a_schema_that_is_gone_is_a_finding(released: Path) -> None:
    without = {name: text for name, text in files().items() if not name.endswith("events/weavr.test.v1.json")}
    assert any(": field-removed: " in line for line in compatibility.findings(released, without))


def test_a_header_that_is_gone_is_a_finding(released: Path) -> None:
    (line,) = compatibility.findings(released, files(headers=HEADERS | {"properties": {}}))
    assert line.startswith("schemas/asyncapi.json#/components/schemas/Headers/properties/ce_id: field-removed: ")


def test_a_release_that_breaks_something_changes_nothing(released: Path) -> None:
    before = {path: path.read_text() for path in released.rglob("*.json")}
    assert compatibility.release(released, files(SCHEMA | {"required": []})) != []
    assert {path: path.read_text() for path in released.rglob("*.json")} == before


def test_a_new_version_is_beside_the_former_one(released: Path) -> None:
    second = EVENT | {"version": 2, "dataschema": f"{EVENT['dataschema'][:-1]}2", "schema": "events/weavr.test.v2.json"}
    today = files(index=INDEX | {"events": {"weavr.test": second}})
    today["schemas/events/weavr.test.v2.json"] = schemas.text({"$id": second["dataschema"], "type": "object"})
    assert compatibility.release(released, today) == []
    assert sorted(path.name for path in (released / "events").iterdir()) == ["weavr.test.v1.json", "weavr.test.v2.json"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"topic": "card-events.other"}, ("/events/weavr.test/topic", "topic-changed")),
        ({"key": ["{integration}"]}, ("/events/weavr.test/key", "key-changed")),
        ({"path": "/tests/watch"}, ("/events/weavr.test/path", "path-changed")),
        ({"version": 0}, ("/events/weavr.test/version", "version-lowered")),
        ({"dataschema": "urn:other"}, ("/events/weavr.test/dataschema", "id-changed")),
        ({"schema": "events/other.v1.json"}, ("/events/weavr.test/schema", "file-changed")),
        ({"example": "examples/other.json"}, None),
    ],
)
def test_where_an_event_is_found_is_promised(change: dict[str, Any], told: tuple[str, str] | None) -> None:
    current = INDEX | {"events": {"weavr.test": EVENT | change}}
    found = [(one.pointer, one.rule) for one in compatibility.index_changes(INDEX, current)]
    assert found == ([told] if told else [])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sensitive": False}, ("/topics/card-events.test/sensitive", "sensitive-dropped")),
        ({"key": "account"}, ("/topics/card-events.test/key", "key-changed")),
        ({"partitions": 6}, ("/topics/card-events.test/partitions", "partitions-changed")),
        ({"retention_ms": 999}, ("/topics/card-events.test/retention_ms", "retention-shortened")),
        ({"retention_ms": 1001}, None),
        ({"about": "Tests"}, None),
    ],
)
def test_how_a_topic_is_kept_is_promised(change: dict[str, Any], told: tuple[str, str] | None) -> None:
    current = INDEX | {"topics": {"card-events.test": TOPIC | change}}
    found = [(one.pointer, one.rule) for one in compatibility.index_changes(INDEX, current)]
    assert found == ([told] if told else [])


def test_events_and_topics_stay_and_others_may_come() -> None:
    grown = INDEX | {"events": INDEX["events"] | {"weavr.more": EVENT}, "topics": INDEX["topics"] | {"more": TOPIC}}
    assert [*compatibility.index_changes(INDEX, grown)] == []
    assert [one.rule for one in compatibility.index_changes(grown, INDEX)] == ["event-removed", "topic-removed"]


def test_the_command_names_what_breaks_and_fails(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schemas, "RELEASED", released)
    monkeypatch.setattr(schemas, "render", files)
    assert compatibility.main([]) == 0
    monkeypatch.setattr(schemas, "render", lambda: files(SCHEMA | {"required": []}))
    assert compatibility.main(["--release"]) == 1
    assert "#/properties/id: required-dropped: " in capsys.readouterr().err
    assert json.loads((released / "events/weavr.test.v1.json").read_text())["required"] == ["id"]


def test_the_projects_contracts_keep_what_was_released() -> None:
    assert compatibility.findings(schemas.RELEASED, schemas.render()) == []
