"""AsyncAPI's own parser, where Node.js is: installed once, as its lock file says, into a cache folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent / "asyncapi"
_CACHE = Path.home() / ".cache" / "card-pipeline"


@pytest.fixture(scope="session")
def asyncapi_parser() -> Path:
    """The folder that the parser is installed in."""
    lock = (_HERE / "package-lock.json").read_bytes()
    folder = _CACHE / f"asyncapi-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not shutil.which("node") or not (folder.is_dir() or shutil.which("npm")):
        pytest.skip("needs Node.js 18 or later with npm (apt install nodejs npm)")
    if not folder.is_dir():
        _install(folder)
    return folder


def parse(parser: Path, document: Path) -> dict[str, Any]:
    """Return the parser's counts for a document, and its diagnostics."""
    command = ["node", str(_HERE / "validate.mjs"), str(document), str(parser)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def _install(folder: Path) -> None:
    _CACHE.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=_CACHE))
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_HERE / name, fresh)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, check=True, cwd=fresh, stdin=subprocess.DEVNULL)
    try:
        fresh.rename(folder)
    except OSError:  # another test run was faster
        shutil.rmtree(fresh)
