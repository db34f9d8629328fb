"""The compiled requirements go with pyproject.toml; `make lock` makes them so. No network is asked."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SUBSCRIBER: Final = PYPROJECT["project"]["dependencies"]
SERVER: Final = [*SUBSCRIBER, *PYPROJECT["project"]["optional-dependencies"]["server"]]
EMBEDDED: Final = PYPROJECT["project"]["optional-dependencies"]["embedded"]
GROUPS: Final = PYPROJECT["dependency-groups"]
WANTED: Final = {
    "subscriber.txt": SUBSCRIBER,
    "server.txt": SERVER,
    "build.txt": GROUPS["build"],
    "demo.txt": [*SERVER, *EMBEDDED, *GROUPS["build"]],
    "bench.txt": GROUPS["bench"],
    "docs.txt": GROUPS["docs"],
    "dev.txt": [*SERVER, *EMBEDDED, *GROUPS["build"], *GROUPS["dev"]],
}


@dataclass(frozen=True)
class Pin:
    """One requirement of a compiled file.

    Attributes:
        requirement: Name, exact version, marker.
        hashes: How many hashes it may have.
        direct: Whether the project itself asks for it.
    """

    requirement: Requirement
    hashes: int
    direct: bool


def pins(name: str) -> dict[str, Pin]:
    """The requirements of a compiled file, by their normalised names."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    found: dict[str, Pin] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        first, *rest = block.splitlines()
        requirement = Requirement(first.removesuffix("\\").strip())
        hashes = sum(line.strip().startswith("--hash=sha256:") for line in rest)
        found[canonicalize_name(requirement.name)] = Pin(requirement, hashes, "card-pipeline (pyproject.toml" in block)
    return found


@pytest.mark.parametrize("name", WANTED)
def test_the_project_asks_for_what_is_pinned_and_for_nothing_else(name: str) -> None:
    wanted = {canonicalize_name(Requirement(text).name) for text in WANTED[name]}
    assert wanted == {key for key, pin in pins(name).items() if pin.direct}, "run: make lock"


def test_a_subscriber_brings_no_package_of_the_server() -> None:
    """Other teams install the library beside their own: a web server, Arrow and numpy would be theirs to update."""
    extra = PYPROJECT["project"]["optional-dependencies"]["server"]
    assert {canonicalize_name(Requirement(text).name) for text in extra} & set(pins("subscriber.txt")) == set()


@pytest.mark.parametrize("name", WANTED)
def test_what_is_pinned_is_what_the_project_can_work_with(name: str) -> None:
    locked = pins(name)
    for requirement in map(Requirement, WANTED[name]):
        (pinned,) = locked[canonicalize_name(requirement.name)].requirement.specifier
        assert requirement.specifier.contains(pinned.version), f"{requirement} is pinned to {pinned}; run: make lock"


@pytest.mark.parametrize("name", WANTED)
def test_every_version_is_exact_and_has_hashes(name: str) -> None:
    for pin in pins(name).values():
        assert [specifier.operator for specifier in pin.requirement.specifier] == ["=="]
        assert pin.hashes > 0


@pytest.mark.parametrize("name", WANTED)
def test_no_line_names_where_packages_come_from(name: str) -> None:
    """The person who installs decides about that: a mirror, a proxy, a private index."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    assert re.findall(r"^\s*-(?!-hash=)\S+|\w+://\S+", text, flags=re.MULTILINE) == []


@pytest.mark.parametrize("name", ["subscriber.txt", "server.txt", "build.txt", "demo.txt"])
def test_all_environments_run_the_versions_that_were_tested(name: str) -> None:
    tested = pins("dev.txt")
    found = {key: str(pin.requirement.specifier) for key, pin in pins(name).items()}
    assert found == {key: str(tested[key].requirement.specifier) for key in found}


def test_no_pyjwt_that_raises_over_an_expiry_is_accepted() -> None:
    """Up to 2.14 ``exp`` as null, list or 1e999 raised TypeError or OverflowError instead of InvalidTokenError."""
    (pyjwt,) = [Requirement(text) for text in SERVER if text.startswith("pyjwt")]
    assert [version for version in ("2.10.0", "2.14.0", "2.15.0") if version in pyjwt.specifier] == ["2.15.0"]
