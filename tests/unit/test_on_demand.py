"""Names that a package offers without importing their modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline import storage
from pipeline.storage.local import LocalStore


def test_a_name_is_imported_when_it_is_asked_for() -> None:
    script = (
        "import sys, pipeline.storage as storage; before = 'pipeline.storage.local' in sys.modules; "
        "storage.LocalStore; print(before, 'pipeline.storage.local' in sys.modules, 'LocalStore' in vars(storage))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True", "True"]
    assert storage.LocalStore is LocalStore


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"module 'pipeline\.storage' has no attribute 'Tape'"):
        _ = storage.Tape  # type: ignore[attr-defined]
