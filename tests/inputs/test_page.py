"""Each row of docs/reference/inputs/ is a test of this folder, and each case of this folder has a row."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Final

import pytest
from support.inputs_page import FOLDER
from support.paths import ROOT

MODULE: Final = re.compile(r"^Tests: `(tests/inputs/test_\w+\.py)`", re.MULTILINE)
ROW: Final = re.compile(r"^\| `([a-z0-9-]+)` \|", re.MULTILINE)
PAGES: Final = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.md") if path.name != "index.md"}


def cases_of(path: Path) -> list[str]:
    """The names of a module's cases, which are the ids of its tests."""
    spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where a dataclass looks up its module
    spec.loader.exec_module(module)
    return list(module.CASES)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_each_row_is_a_case_and_each_case_a_row(page: str) -> None:
    text = PAGES[page]
    named = MODULE.search(text)
    assert named is not None
    rows = ROW.findall(text)
    assert len(set(rows)) == len(rows)
    assert sorted(rows) == sorted(cases_of(ROOT / named[1]))


def test_each_module_of_cases_has_one_page() -> None:
    modules = {str(path.relative_to(ROOT)) for path in Path(__file__).parent.glob("test_*.py")}
    named = [module for text in PAGES.values() for module in MODULE.findall(text)]
    assert sorted(named) == sorted(modules - {"tests/inputs/test_page.py"})
