"""The published schemas: valid, plain, and true of what the partners send and of what we write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from random import Random
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import ValidationError
from support.job_world import World
from support.paths import ROOT

from pipeline.contracts import TOPICS, AuditAction, first_values
from pipeline.contracts.sensitive import is_sensitive
from pipeline.contracts.weavr import KINDS, EventKind
from pipeline.sandbox.weavr.bodies import Fields, body_of
from pipeline.webhooks.answers import Answer, Problem
from tools.contract_table import CONTRACTS, Contract

SCHEMAS: Final = ROOT / "schemas"
STRANGE: Final[tuple[Any, ...]] = (None, "", "x", "007", -5, 2**70, 1.5, True, [], {})
"""Of every type, as some partner may send it one day."""
INDEX: Final = json.loads((SCHEMAS / "index.json").read_text("utf-8"))


def read(name: str) -> Any:
    """A file of the folder."""
    return json.loads((SCHEMAS / name).read_text("utf-8"))


def validator(name: str) -> Draft202012Validator:
    """What checks values by a schema."""
    return Draft202012Validator(read(name), format_checker=FormatChecker())


def objects(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a document."""
    if isinstance(node, Mapping):
        yield node
    if isinstance(node, Mapping | list):
        for inner in node.values() if isinstance(node, Mapping) else node:
            yield from objects(inner)


def all_schemas() -> list[str]:
    """Every schema's file."""
    return [*(contract.schema for contract in CONTRACTS), "problem.v1.json"]


@pytest.mark.parametrize("name", all_schemas())
def test_a_schema_is_valid_draft_2020_12(name: str) -> None:
    schema = read(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", all_schemas())
def test_a_schema_uses_no_word_that_code_generators_fail_at(name: str) -> None:
    words = {word for node in objects(read(name)) for word in node}
    assert words & {"anyOf", "oneOf", "allOf", "not", "if", "const", "prefixItems", "$anchor", "$dynamicRef"} == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_the_schema_of_a_weavr_event_is_what_its_records_name(kind: EventKind) -> None:
    entry = INDEX["events"][kind.type]
    assert read(entry["schema"])["$id"] == kind.dataschema == entry["dataschema"]
    assert (entry["path"], entry["topic"], entry["version"]) == (kind.path, kind.topic, kind.version)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_an_example_fits_schema_and_model(contract: Contract) -> None:
    example = read(contract.example)
    assert [error.message for error in validator(contract.schema).iter_errors(example)] == []
    contract.model.model_validate(example)


@pytest.mark.parametrize("fields", ["all", "some", "required"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_what_weavr_describes_fits_the_schema(kind: EventKind, fields: Fields) -> None:
    """Bodies are made from Weavr's description, not from the models that the schemas are made from."""
    checks = validator(INDEX["events"][kind.type]["schema"])
    for seed in range(5):
        rng = Random(seed)  # noqa: S311 - the same each time
        body = body_of(kind.path, rng, fields=fields, new_fields=2, new_enum_values=True)
        assert [error.message for error in checks.iter_errors(body)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_a_schema_describes_every_field_that_weavr_does(kind: EventKind) -> None:
    checks = Draft202012Validator(_closed(read(INDEX["events"][kind.type]["schema"])))
    body = body_of(kind.path, Random(7))  # noqa: S311 - the same each time
    assert [error.message for error in checks.iter_errors(body)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_what_a_model_takes_fits_the_schema(kind: EventKind) -> None:
    """Whatever is accepted is published, so a schema must never be narrower than its model."""
    checks = validator(INDEX["events"][kind.type]["schema"])
    body = body_of(kind.path, Random(3))  # noqa: S311 - the same each time
    refused = 0
    for changed in _spoilt(body):
        try:
            kind.model.model_validate(changed)
        except ValidationError:
            refused += 1
        else:
            assert [error.message for error in checks.iter_errors(changed)] == []
    assert refused > 0


async def test_what_the_stages_write_fits_the_schema_that_it_names() -> None:
    world = World()
    await world.run(world.announce())
    by_ident = {contract.ident: contract for contract in CONTRACTS}
    written = [(by_ident[first_values(one.headers)["ce_dataschema"]], one) for one in world.bus.published]
    for contract, record in written:
        assert first_values(record.headers)["ce_type"] in contract.types
        errors = validator(contract.schema).iter_errors(json.loads(record.value))
        assert [error.message for error in errors] == []
    assert {contract.name for contract, _ in written} == {
        "card-batch.processed",
        "card-batch.uploaded",
        "card-batch.completed",
        "audit.events",
    }


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_sensitive_values_are_marked_and_nothing_else_is(contract: Contract) -> None:
    schema = read(contract.schema)
    for node in objects(schema):
        for name, value in node.get("properties", {}).items():
            assert value.get("x-sensitive", False) == (is_sensitive(name) and not _holds_fields(value, schema)), name


def test_the_index_has_every_type_of_record_and_every_topic() -> None:
    types = {kind.type for kind in KINDS} | {f"audit.{action}" for action in AuditAction}
    assert types <= {*INDEX["events"]}
    assert [*INDEX["topics"]] == [spec.topic for spec in TOPICS]


def test_the_index_names_files_that_are_there() -> None:
    entries = [*INDEX["events"].values(), *INDEX["bodies"].values()]
    named = {entry[kind] for entry in entries for kind in ("schema", "example")}
    assert [name for name in sorted(named) if not (SCHEMAS / name).is_file()] == []


def test_the_step_up_token_is_marked_in_index_and_topic() -> None:
    stepup = INDEX["events"]["weavr.stepup"]
    assert (stepup["sensitive"], stepup["sensitive_fields"]) == (True, ["authToken"])
    assert INDEX["topics"]["card-events.stepup"] == {
        "partitions": 6,
        "retention_ms": 900_000,
        "sensitive": True,
        "key": "credential",
        "value": "json",
        "types": ["weavr.stepup"],
        "dead_letter": None,
    }


@pytest.mark.parametrize("answer", [answer for answer in Answer if answer is not Answer.ACCEPTED])
def test_a_refusal_fits_the_schema_of_problems(answer: Answer) -> None:
    document = Problem(answer).document("4bf92f3577b34da6a3ce929d0e0e4736")
    assert [error.message for error in validator("problem.v1.json").iter_errors(document)] == []


def _spoilt(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The body with one field at a time gone, or with another value."""
    for location in _locations(body):
        for value in (..., *STRANGE):
            changed = deepcopy(body)
            holder = changed
            for step in location[:-1]:
                holder = holder[step]
            if value is ...:
                del holder[location[-1]]
            else:
                holder[location[-1]] = value
            yield changed


def _locations(node: Any, location: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, value in inner:
        yield (*location, step)
        yield from _locations(value, (*location, step))


def _closed(schema: Any) -> Any:
    """The schema, refusing fields that it does not name."""
    if isinstance(schema, Mapping):
        inner = {key: _closed(value) for key, value in schema.items()}
        return inner | {"additionalProperties": False} if "properties" in schema and "type" in schema else inner
    return [_closed(one) for one in schema] if isinstance(schema, list) else schema


def _holds_fields(node: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    if "$ref" in node:
        return _holds_fields(root["$defs"][node["$ref"].rpartition("/")[2]], root)
    return "properties" in node or ("items" in node and _holds_fields(node["items"], root))
