"""The snippets of the documentation pages that a reader copies.

A snippet is a fenced block with a language. ``text`` shows what a command prints. A snippet whose first line is
``# Example only: WHY`` cannot run in a test; the reader sees why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EXAMPLE_ONLY: Final = "# Example only: "

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_FILE: Final = re.compile(r"`(?P<name>[\w./]+)`:\s*$")
_INDENTED: Final = re.compile(r"\n\n {4}[^\s*|-].*\n")


@dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        file: The file that the reader writes it into, if the sentence before it ends with that name.
    """

    page: str
    line: int
    language: str
    text: str
    file: str | None

    @property
    def runs(self) -> bool:
        """Whether a test can run it."""
        return not self.text.startswith(EXAMPLE_ONLY)

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language})"


def snippets_of(page: Path) -> list[Snippet]:
    """Return the fenced blocks of a page, in their order."""
    text = page.read_text("utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        indent = fence["indent"]
        body = "".join(line.removeprefix(indent) for line in fence["text"].splitlines(keepends=True))
        named = _FILE.search(text[: fence.start()])
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Snippet(page.name, line, fence["language"], body, named["name"] if named else None))
    return found


def indented_blocks_of(page: Path) -> list[str]:
    """Return the blocks that only their indentation marks, outside fences and lists."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [block.strip() for block in _INDENTED.findall(text)]
