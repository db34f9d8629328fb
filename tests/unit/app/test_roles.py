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
OTHER_STAGES: Final = (
    "pipeline.audit.chain",
    "pipeline.audit.reading",
    "pipeline.contracts.weavr",
    "pipeline.jobs.confirm",
    "pipeline.jobs.deadline_watch",
    "pipeline.jobs.due_jobs",
    "pipeline.jobs.processors.http",
    "pipeline.jobs.upload",
    "pipeline.webhooks.handler",
)
"""What the worker of PROCESS does without."""
BUILT: Final = """
import sys
import pipeline.cli.serve
{imports}
from pydantic import BaseModel
def models(base):
    for one in base.__subclasses__():
        yield one
        yield from models(one)
rooms = "pipeline.contracts", "pipeline.jobs.receipts"
found = [one for one in models(BaseModel) if one.__module__.startswith(rooms)]
print(len(found) > 10, *(one.__name__ for one in found if one.__pydantic_complete__))
"""


@pytest.mark.parametrize(
    ("imports", "names", "loaded"),
    [
        ("import pipeline.app.ingress", (*HEAVY, "pipeline.jobs.chunks"), ""),
        (
            "import pipeline.app.assembly",
            (*HEAVY, "pipeline.webhooks.handler", "pipeline.contracts.weavr", "pipeline.jobs.chunks"),
            "cryptography",
        ),
        (
            (
                "import pipeline.app.assembly, pipeline.jobs.fanout, pipeline.jobs.process; "
                "from pipeline.jobs.processors import load"
            ),
            (*HEAVY, *OTHER_STAGES, "pipeline.app.supervisor", "pyarrow.compute", "pydantic.v1"),
            "cryptography numpy pyarrow",
        ),
        ("import pipeline.app.supervisor", (*HEAVY, "pipeline.webhooks.handler", "pipeline.jobs.chunks"), ""),
    ],
    ids=["ingress", "upload", "process", "supervisor"],
)
def test_a_process_loads_what_its_role_needs(imports: str, names: tuple[str, ...], loaded: str) -> None:
    """CONFIRM loads jwt when it opens its callbacks, PROCESS numpy and Arrow when its worker is made."""
    script = SCRIPT.format(imports=imports, names=names)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == loaded


@pytest.mark.parametrize(
    "imports", ["import pipeline.app.assembly, pipeline.jobs.process", "import pipeline.subscriber"]
)
def test_a_model_of_messages_is_built_when_it_is_first_used(imports: str) -> None:
    """Building all models took a tenth of a worker's start."""
    result = subprocess.run(
        [sys.executable, "-c", BUILT.format(imports=imports)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["True"]
