"""What docs/reference/public-api.md promises is there."""

from __future__ import annotations

import importlib
import inspect
import re
from importlib.metadata import entry_points, version
from typing import Final

import pytest
from support.paths import ROOT

PAGE: Final = (ROOT / "docs" / "reference" / "public-api.md").read_text("utf-8")
PROMISED: Final = [
    (module, name)
    for module, names in re.findall(r"^\| `(pipeline\.[\w.]+)` \| (.+?) \|", PAGE, flags=re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
]


@pytest.mark.parametrize(("module", "name"), PROMISED)
def test_a_promised_name_is_offered_and_explained(module: str, name: str) -> None:
    package = importlib.import_module(module)
    assert name in package.__all__
    assert inspect.getdoc(getattr(package, name))


def test_what_tests_of_processors_need_is_promised_whole() -> None:
    testing = {name for module, name in PROMISED if module == "pipeline.testing"}
    assert testing == set(importlib.import_module("pipeline.testing").__all__)


def test_the_pages_that_say_more_are_there() -> None:
    paths = re.findall(r"`((?:docs|src)/[\w./-]+)`", PAGE)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_built_in_processors_are_found_by_the_group_that_is_promised() -> None:
    assert "`card_pipeline.processors`" in PAGE
    assert {one.name for one in entry_points(group="card_pipeline.processors")} >= {"validate", "http"}


def test_the_version_is_the_distributions() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version("card-pipeline"))
