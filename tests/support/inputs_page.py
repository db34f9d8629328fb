"""The tables of docs/reference/inputs/."""

from __future__ import annotations

import re
from typing import Final

from support.paths import ROOT

FOLDER: Final = ROOT / "docs" / "reference" / "inputs"
_ROW: Final = re.compile(r"^\| `([a-z0-9-]+)` \| .* \| (.*) \|$", re.MULTILINE)


def answers(page: str) -> dict[str, str]:
    """Return the last cell of each row of a page, by the row's name."""
    text = (FOLDER / f"{page}.md").read_text("utf-8")
    return {name: answer.replace("\\|", "|") for name, answer in _ROW.findall(text)}
