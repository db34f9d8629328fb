"""The command without what it needs: it says what to install."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

from pipeline.cli.exits import ExitCode
from pipeline.cli.start import SERVER_PACKAGES

EXTRAS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
WITHOUT: Final = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name)

import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {hidden!r} else real(name, package)
sys.meta_path.insert(0, Hidden())
from pipeline.cli import main
main()
"""


def without(*hidden: str) -> subprocess.CompletedProcess[str]:
    """Run ``pipeline --help`` where some packages cannot be found."""
    command = [sys.executable, "-c", WITHOUT.format(hidden=hidden), "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("hidden", [SERVER_PACKAGES, ("click",), ("pyarrow", "uvloop")])
def test_one_sentence_says_what_to_install(hidden: tuple[str, ...]) -> None:
    done = without(*hidden)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == (
        'error: server_missing: The pipeline command needs the extra "server": pip install "card-pipeline[server]" '
        f"(not installed: {', '.join(hidden)})\n"
    )


def test_the_packages_that_are_looked_for_are_those_of_the_extra() -> None:
    distributions = packages_distributions()
    looked_for = {canonicalize_name(one) for name in SERVER_PACKAGES for one in distributions[name]}
    assert looked_for == {canonicalize_name(Requirement(text).name) for text in EXTRAS["server"]}


def test_a_subscriber_can_fetch_tokens_with_the_version_that_the_server_uses() -> None:
    assert set(EXTRAS["oauth"]) <= set(EXTRAS["server"])
