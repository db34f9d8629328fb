"""The command line. Names, formats and exit codes for scripts are a contract: docs/cli.md."""

from pipeline.cli.main import cli, main

__all__ = ["cli", "main"]
