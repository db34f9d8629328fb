"""What acceptance tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environments import build
from support.flow_process import environment
from support.paths import ROOT
from support.prefork import Prefork, running_prefork


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel of this project."""
    wheel, sdist = build(ROOT, tmp_path_factory.mktemp("dist"), "wheel", "sdist")
    return sdist, wheel


@pytest.fixture(scope="session")
def prefork() -> Iterator[Prefork]:
    """Cheap starts: give it to ``running_flow(..., launch=prefork)``."""
    with running_prefork(environment()) as server:
        yield server
