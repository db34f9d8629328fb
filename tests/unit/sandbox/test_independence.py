"""The sandbox shares no code with what it checks: only so can it convict it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pipeline.sandbox

ROOM = Path(str(pipeline.sandbox.__file__)).parent
ALLOWED = {"pipeline.sandbox", "pipeline.errors"}
ALLOWED_IN = {
    ROOM / "settings.py": {"pipeline.units"},
    ROOM / "demo" / "running.py": {"pipeline.app", "pipeline.settings", "pipeline.observability"},
    ROOM / "demo" / "subscribing.py": {"pipeline.subscriber", "pipeline.kafka"},
}
"""Settings share the types of numbers. The demo runs the pipeline, and reads its topics as a subscriber does."""


def imported(file: Path) -> set[str]:
    """Return the pipeline's own rooms that a module imports, as ``pipeline.room``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {".".join(name.split(".")[:2]) for name in names if name.split(".")[0] == "pipeline"}


@pytest.mark.parametrize("file", sorted(ROOM.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOM)))
def test_no_module_uses_what_it_checks(file: Path) -> None:
    """Neither cards, transfer, callback, signatures, audit nor contracts; only the demo starts the pipeline."""
    assert imported(file) <= ALLOWED | ALLOWED_IN.get(file, set())


def test_weavrs_events_come_from_the_description_alone() -> None:
    """No module of the sandbox's Weavr knows models, table of kinds, verification, or anything else of the pipeline."""
    for file in (ROOM / "weavr").glob("*.py"):
        assert imported(file) <= {"pipeline.sandbox"}
