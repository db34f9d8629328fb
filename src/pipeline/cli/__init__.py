"""The command line. Names, formats and exit codes for scripts are a contract: docs/reference/cli.md."""

from pipeline.cli.start import main

__all__ = ["main"]
