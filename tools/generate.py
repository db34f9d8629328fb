"""Write the generated files, or list the stale ones: ``python -m tools.generate [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pipeline.settings.json_schema import schema_text
from tools import (
    api_page,
    decisions_page,
    errors_page,
    events_page,
    logging_page,
    metrics_page,
    schemas,
    settings_page,
    statuses_page,
    topics_page,
)

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
COMMAND = "make generate"
_RELEASED = f"{schemas.FOLDER}/released/"
"""Files that only a release writes (``tools.compatibility``)."""


@cache
def generated() -> Mapping[str, str]:
    """Return the text of every generated file by its path in the project. It takes seconds, and is cached."""
    return {
        "docs/decisions/index.md": decisions_page.render(ROOT / "docs"),
        "docs/reference/errors.md": errors_page.render(SRC),
        **{f"docs/reference/events/{name}.md": text for name, text in events_page.render().items()},
        "docs/reference/logging.md": logging_page.render(SRC),
        "docs/reference/metrics.md": metrics_page.render(),
        **{f"docs/reference/python/{name}.md": text for name, text in api_page.render().items()},
        "docs/reference/settings.md": settings_page.render(),
        "docs/reference/statuses.md": statuses_page.render(),
        "docs/reference/topics.md": topics_page.render(),
        f"{schemas.FOLDER}/settings.json": schema_text(),
        **schemas.render(),
    }


def stale(root: Path) -> list[str]:
    """Return the stale files: changed, missing, or no longer generated."""
    wanted = generated()
    found = [name for name, text in wanted.items() if _text(root / name) != text]
    folders = (f"{schemas.FOLDER}/**/*.json", "docs/reference/events/*.md", "docs/reference/python/*.md")
    there = (str(path.relative_to(root)) for folder in folders for path in root.glob(folder))
    return sorted(found + [name for name in there if name not in wanted and not name.startswith(_RELEASED)])


def write(root: Path) -> None:
    """Write every generated file, and remove schemas and pages of what no longer exists."""
    wanted = generated()
    for name in stale(root):
        path = root / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], "utf-8")
        else:
            path.unlink()
        print(name)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the stale files")
    if not parser.parse_args(arguments).check:
        write(ROOT)
        return 0
    names = stale(ROOT)
    for name in names:
        print(f"{name} is stale; run: {COMMAND}", file=sys.stderr)
    return 1 if names else 0


def _text(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
