"""Each process loads the libraries of its own work only."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

SCRIPT: Final = """
import sys
from click.testing import CliRunner
from pipeline.cli.root import cli
CliRunner().invoke(cli, ["work", "--help"])
import pipeline.cli.serve
{imports}
print(*(name for name in {names} if name in sys.modules))
"""
HEAVY: Final = ("cryptography", "jwt", "numpy", "obstore", "pyarrow", "rich")
"""Together they take as much memory as everything else that a process loads."""


@pytest.mark.parametrize(
    ("imports", "names", "loaded"),
    [
        ("import pipeline.app.ingress", (*HEAVY, "pipeline.jobs.chunks"), ""),
        (
            "import pipeline.app.assembly",
            (*HEAVY, "pipeline.webhooks.handler", "pipeline.contracts.weavr", "pipeline.jobs.chunks"),
            "cryptography",
        ),
        ("import pipeline.app.supervisor", (*HEAVY, "pipeline.webhooks.handler", "pipeline.jobs.chunks"), ""),
    ],
    ids=["ingress", "upload", "supervisor"],
)
def test_a_process_loads_what_its_role_needs(imports: str, names: tuple[str, ...], loaded: str) -> None:
    """CONFIRM loads jwt when it opens its callbacks, PROCESS numpy and Arrow when its worker is made."""
    script = SCRIPT.format(imports=imports, names=names)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == loaded
