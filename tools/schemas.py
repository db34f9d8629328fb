"""``schemas/``: the contracts for readers in any language: JSON Schemas, examples, index, AsyncAPI, OpenAPI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tools import asyncapi, openapi
from tools.contract_index import index
from tools.contract_table import CONTRACTS
from tools.examples import example
from tools.wire_schema import Schema, wire_schema

FOLDER: Final = "schemas"
RELEASED: Final = Path(__file__).parent.parent / FOLDER / "released"
"""Copies of the last release; see ``tools.compatibility``."""


def render(released: Path = RELEASED) -> dict[str, str]:
    """Return the text of each file by its path in the project.

    A released schema stays when its kind goes on to another version: records that name it lie in topics and archives.
    """
    schemas = contract_schemas()
    examples = {contract.name: example(contract) for contract in CONTRACTS}
    documents: dict[str, Any] = {
        **{contract.schema: schemas[contract.name] for contract in CONTRACTS},
        **{contract.example: examples[contract.name] for contract in CONTRACTS},
        "problem.v1.json": openapi.PROBLEM,
        "index.json": index(schemas),
        "asyncapi.json": asyncapi.document(examples),
        "openapi.json": openapi.document(),
    }
    files = {f"{FOLDER}/{name}": text(document) for name, document in documents.items()}
    return _former(released) | files


def contract_schemas() -> dict[str, Schema]:
    """Return each contract's schema by the contract's name."""
    return {
        contract.name: wire_schema(
            contract.model, contract.ident, title=contract.title, ours=contract.provider == "pipeline"
        )
        for contract in CONTRACTS
    }


def text(document: Any) -> str:
    """Return JSON in the format of all generated files."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _former(released: Path) -> dict[str, str]:
    """Return released schemas and examples; the current ones replace those of the same version."""
    paths = sorted(path for folder in ("events", "examples") for path in released.glob(f"{folder}/*.json"))
    return {f"{FOLDER}/{path.relative_to(released)}": path.read_text("utf-8") for path in paths}
