"""The Dockerfile, as far as it can be read: building it takes a daemon and a network."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from typing import Final

from support.manifests import DEPLOY, of_kind, pod_of

ROOT: Final = DEPLOY.parent
TEXT: Final = (DEPLOY / "container" / "Dockerfile").read_text("utf-8")
LINES: Final = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
BUILD: Final = LINES[: LINES.index("FROM ${PYTHON}")]
FINAL: Final = LINES[LINES.index("FROM ${PYTHON}") :]


def test_both_stages_stand_on_one_python_that_we_support() -> None:
    assert LINES[0] == "ARG PYTHON=python:3.13-slim"
    assert [line for line in LINES if line.startswith("FROM")] == ["FROM ${PYTHON} AS build", "FROM ${PYTHON}"]
    assert "Programming Language :: Python :: 3.13" in (ROOT / "pyproject.toml").read_text("utf-8")


def test_what_is_copied_exists_and_is_let_through() -> None:
    ignored = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert "*" in ignored
    copied = [name for line in BUILD if line.startswith("COPY") for name in shlex.split(line)[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if not any(fnmatch(name, pattern) for pattern in allowed)] == []
    assert [name for name in allowed if name not in copied] == []


def test_everything_that_is_installed_has_a_hash_or_is_our_own_wheel() -> None:
    installs = re.findall(r"pip(?: --python \S+)? install (.*?)(?: && |$)", "\n".join(BUILD), flags=re.MULTILINE)
    assert len(installs) == 3
    for options in installs:
        locked = "--require-hashes --only-binary :all: -r requirements/" in options
        own = options.strip() == "--no-index --no-deps dist/card_pipeline-*.whl"
        assert locked or own


def test_what_is_shipped_runs_as_nobody_with_the_command_and_no_installer() -> None:
    users = {pod_of(one)["securityContext"]["runAsUser"] for one in of_kind("Deployment")}
    (user,) = users
    assert f"USER {user}:{user}" in FINAL
    assert 'ENTRYPOINT ["pipeline"]' in FINAL
    assert [line for line in FINAL if "install" in line and "uninstall" not in line] == []
    assert [line for line in FINAL if line.startswith("COPY")] == [
        "COPY --from=build /opt/card-pipeline /opt/card-pipeline"
    ]
