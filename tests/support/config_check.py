"""What ``pipeline config check`` says about settings in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from pipeline.app import PORTS
from pipeline.cli.root import cli


@dataclass(frozen=True)
class Answer:
    """The answer of one check.

    Attributes:
        output: Everything that was printed, to assert what is not in it.
    """

    exit_code: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    unchecked: tuple[str, ...]
    output: str


def config_check(
    folder: Path, settings: bytes, files: Mapping[str, bytes | str], options: Sequence[str] = ()
) -> Answer:
    """Check settings.

    Args:
        folder: Where settings and files are written.
        settings: The settings file.
        files: The files beside it, for their owner alone; a text is the target of a symbolic link.
        options: Further options of the command.
    """
    path = folder / "pipeline.toml"
    path.write_bytes(settings)
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).symlink_to(content)
            continue
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    arguments = ["--config", str(path), "config", "check", "--json", *options]
    done = CliRunner().invoke(cli, arguments, prog_name="pipeline", obj=PORTS)
    assert done.exit_code in {0, 2}, done.output
    said = json.loads(done.stdout)
    problems, warnings, unchecked = (
        tuple(line.replace(f"{folder}/", "") for line in said[key]) for key in ("problems", "warnings", "unchecked")
    )
    return Answer(done.exit_code, problems, warnings, unchecked, done.output)
