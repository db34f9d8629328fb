"""Too little coverage is named, of lines and of branches each."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools.coverage_gate import main

MODULE = textwrap.dedent(
    """\
    def sign(number):
        if number < 0:
            return "-"
        return "+"

    signs = [sign(number) for number in NUMBERS]
    """
)
CONFIG = """\
[tool.coverage.run]
branch = true
data_file = "measured"
include = ["signs.py"]

[tool.coverage.json]
output = "measured.json"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one module and measurements that go with it."""
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measure(project: Path, *numbers: int) -> None:
    """Run the module, measured, in a process of its own: this one may be measured itself."""
    (project / "signs.py").write_text(MODULE.replace("NUMBERS", repr(numbers)))
    subprocess.run([sys.executable, "-m", "coverage", "run", "signs.py"], cwd=project, check=True, timeout=60)


def test_enough_coverage_is_reported_and_passes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(project, 1, -1)
    assert main([]) == 0
    assert capsys.readouterr() == ("covered: 100.0 % of lines, 100.0 % of branches\n", "")


def test_too_little_is_named_by_module(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(project, 1)
    assert main([]) == 1
    out, err = capsys.readouterr()
    assert out == "covered: 80.0 % of lines, 50.0 % of branches\n"
    assert err.splitlines() == ["less than 90 %. Most is missing in:", "  signs.py: 1 lines, 1 branches"]


@pytest.mark.usefixtures("project")
def test_nothing_measured_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "nothing was measured" in capsys.readouterr().err
