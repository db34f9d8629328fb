"""The entry point of the command: runs it, or says what to install. Its imports work without the extra ``server``."""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from pipeline.signals import end_on_sigterm

if TYPE_CHECKING:
    from pipeline.app import Ports

SERVER_PACKAGES: Final = (
    "aiofiles",
    "aiohttp",
    "click",
    "cryptography",
    "jwt",
    "numpy",
    "obstore",
    "pyarrow",
    "pydantic_settings",
    "rich",
    "uvloop",
)
"""Import names of the packages that the extra ``server`` installs."""
_OBJECTS_PER_COLLECTION: Final = 10_000
"""New objects until the garbage collector looks at them while modules are imported. With Python's 700 it would look two
hundred times until a worker is ready, at objects that stay: a tenth of the time."""
_USAGE: Final = 2
"""The same as ``ExitCode.USAGE``, whose module needs the extra ``server``."""
_REMEDY: Final = 'The pipeline command needs the extra "server": pip install "card-pipeline[server]"'


def main(ports: Ports | None = None) -> None:
    """Run the command line of this process; exit with 2 if the extra ``server`` is not installed.

    Args:
        ports: How commands reach the broker, the store and other servers; None for the real ones.
    """
    end_on_sigterm()  # before the imports, which take most of the start time
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    missing = [name for name in SERVER_PACKAGES if find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        sys.stderr.write(f"error: server_missing: {_REMEDY} (not installed: {names})\n")
        sys.exit(_USAGE)
    from pipeline.cli.root import cli  # noqa: PLC0415 - it needs click, which may be missing

    cli(prog_name="pipeline", obj=ports)
