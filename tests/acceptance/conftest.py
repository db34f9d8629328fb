"""What acceptance tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.flow_process import environment
from support.prefork import Prefork, running_prefork


@pytest.fixture(scope="session")
def prefork() -> Iterator[Prefork]:
    """Cheap starts: give it to ``running_flow(..., launch=prefork)``."""
    with running_prefork(environment()) as server:
        yield server
