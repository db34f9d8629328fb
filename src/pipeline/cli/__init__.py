"""The command line. Scripts may rely on its names, formats and exit codes: docs/reference/cli.md."""

from pipeline.cli.start import main

__all__ = ["main"]
