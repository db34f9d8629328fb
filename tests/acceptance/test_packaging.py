"""Wheel and sdist install and run outside of the project, with nothing of it on the path."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
import tarfile
import tomllib
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from support.environments import build, create, install, site_packages, variables
from support.paths import ROOT

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SETTINGS: Final = """\
[ecs.acme]
partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"

[ecs.acme.webhook]
scheme = "shared-secret"
secrets = [{ file = "secret" }]

[ecs.acme.callback]
token_file = "secret"
"""
CARDS: Final = "card_number,note\n9999990000000006,a\n9999990000000014,b\n123,short\n"


@pytest.fixture(scope="module")
def sdist(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the sdist unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built[0]) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.fixture(scope="module")
def environment(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are borrowed, the project's own installation is not."""
    folder = create(tmp_path_factory.mktemp("environment"))
    install(folder, built[1], "--no-deps")
    # a folder added by a .pth file is searched last, and its own .pth files (the editable installation) are not read
    (site_packages(folder) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(environment: Path, cwd: Path, *command: str) -> str:
    """Run a command of the environment, with no variable that leads back to the project; return its stdout."""
    program = environment / "bin" / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=cwd, env=variables(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def contents(wheel: Path) -> dict[str, int]:
    """The checksum of every file in a wheel."""
    with ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


def test_the_installed_package_is_the_wheels(environment: Path, tmp_path: Path) -> None:
    where = run(environment, tmp_path, "python", "-c", "import pipeline; print(pipeline.__file__)")
    assert where.startswith(str(environment))


def test_the_installed_command_explains_itself(environment: Path, tmp_path: Path) -> None:
    assert run(environment, tmp_path, "pipeline", "--version").strip() == f"pipeline, version {PROJECT['version']}"
    text = run(environment, tmp_path, "pipeline", "--help")
    assert all(command in text for command in ("ingress", "work", "dev", "cards", "audit", "sandbox"))


def test_the_installed_command_decides_cards(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(SETTINGS)
    (tmp_path / "secret").write_text("synthetic")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "cards.csv").write_text(CARDS)
    files = ("--input", "cards.csv", "--output", "result.csv")
    told = json.loads(run(environment, tmp_path, "pipeline", "cards", "run", "--integration", "acme", *files))
    assert (told["records"], told["ok"], told["failed"], told["error"]) == (3, 2, 1, None)
    header, *rows = (tmp_path / "result.csv").read_text().splitlines()
    assert header == "card_number,note,status,message"
    assert [row.split(",")[2] for row in rows] == ["ok", "ok", "failed"]


def test_a_processor_is_found_in_the_installed_package(environment: Path, tmp_path: Path) -> None:
    code = "from pipeline.jobs.processors import installed; print(*sorted(installed()))"
    assert run(environment, tmp_path, "python", "-c", code).split() == ["http", "validate"]


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = contents(built[1])
    assert "pipeline/py.typed" in names
    assert [name for name in names if name.endswith(".json")] == ["pipeline/sandbox/weavr/events.json"]
    assert {name.partition("/")[0] for name in names} == {"pipeline", f"card_pipeline-{PROJECT['version']}.dist-info"}
    assert {Path(name).suffix for name in names if name.startswith("pipeline/")} == {".py", ".typed", ".json"}


def test_the_metadata_say_what_the_project_says(built: tuple[Path, Path]) -> None:
    found = metadata(built[1])
    assert (found["Name"], found["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert (found["License-Expression"], found["License-File"]) == ("Apache-2.0", "LICENSE")
    assert found["Requires-Python"] == PROJECT["requires-python"]
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload(decode=True) == (ROOT / "README.md").read_bytes()
    assert found.get_all("Project-URL") is None, "there is no public home yet; none is made up"
    needed = {str(Requirement(text)) for text in found.get_all("Requires-Dist", ()) if "extra ==" not in text}
    assert needed == {str(Requirement(text)) for text in PROJECT["dependencies"]}
    assert found.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])


def test_the_license_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    with ZipFile(built[1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], sdist: Path, tmp_path: Path) -> None:
    (again,) = build(sdist, tmp_path, "wheel")
    assert contents(again) == contents(built[1])


def test_the_sdist_holds_all_that_the_makefile_needs(sdist: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    modules = {name.partition(".")[0] for name in re.findall(r"-m (tools\S*|benchmarks\S*)", makefile)}
    assert modules == {"tools", "benchmarks"}
    for name in (*modules, "tests", "requirements", "pyproject.toml", "README.md", "CONTRIBUTING.md", ".ci/run"):
        assert (sdist / name).exists(), name
