"""Distributions of this project, and environments that hold one. No network is asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from support.paths import ROOT


def build(source: Path, out: Path, *kinds: str) -> list[Path]:
    """Build distributions without isolation, so without a network; return their files."""
    targets = [argument for kind in kinds for argument in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *targets]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    return sorted(out.iterdir())


def pinned(name: str) -> list[str]:
    """Return what a file of ``requirements/`` installs here, by the names of the distributions."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    found = [
        Requirement(line.removesuffix("\\").strip()) for line in re.findall(r"^[^\s#].*", text, flags=re.MULTILINE)
    ]
    return [one.name for one in found if one.marker is None or one.marker.evaluate()]


def site_packages(environment: Path) -> Path:
    """Return the folder that packages are installed into."""
    (packages,) = environment.glob("lib/python*/site-packages")
    return packages


def copy_installed(environment: Path, names: list[str]) -> None:
    """Install the distributions of this environment into another one: the same versions and nothing else."""
    to = site_packages(environment)
    for name in names:
        for file in distribution(name).files or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or not source.is_file():
                continue  # a script, or a cache
            target = to / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def install(environment: Path, wheel: Path, *options: str) -> None:
    """Install a wheel with pip, which asks no index: whatever the wheel needs must be in the environment."""
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-index", *options, str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def create(folder: Path) -> Path:
    """Create an empty environment."""
    venv.create(folder)
    return folder


def variables() -> dict[str, str]:
    """Return this process's variables without those that lead back to the project."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIPELINE", "COV"))}
