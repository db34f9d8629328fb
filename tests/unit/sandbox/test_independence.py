"""The sandbox shares no code with what it checks: only so can it convict it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pipeline.sandbox

PACKAGE = Path(str(pipeline.sandbox.__file__)).parent
ALLOWED = {"pipeline.sandbox", "pipeline.errors"}
ALLOWED_IN = {
    PACKAGE / "settings.py": {"pipeline.units"},
    PACKAGE / "demo" / "running.py": {"pipeline.app", "pipeline.settings", "pipeline.observability"},
    PACKAGE / "demo" / "subscribing.py": {"pipeline.subscriber", "pipeline.kafka"},
}
"""Settings share the types of numbers. The demo runs the pipeline, and reads its topics as a subscriber does."""


def imported(file: Path) -> set[str]:
    """Return the pipeline's own packages that a module imports, as ``pipeline.package``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {".".join(name.split(".")[:2]) for name in names if name.split(".")[0] == "pipeline"}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_module_uses_what_it_checks(file: Path) -> None:
    """Neither cards, transfer, callback, signatures, audit nor contracts; only the demo starts the pipeline."""
    assert imported(file) <= ALLOWED | ALLOWED_IN.get(file, set())


def test_weavrs_events_come_from_the_description_alone() -> None:
    """No module of the sandbox's Weavr knows models, table of kinds, verification, or anything else of the pipeline."""
    for file in (PACKAGE / "weavr").glob("*.py"):
        assert imported(file) <= {"pipeline.sandbox"}
