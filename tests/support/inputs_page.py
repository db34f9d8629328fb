"""The tables of docs/reference/inputs.md."""

from __future__ import annotations

import re
from typing import Final

from support.paths import ROOT

PAGE: Final = (ROOT / "docs" / "reference" / "inputs.md").read_text("utf-8")
_ROW: Final = re.compile(r"^\| `([a-z0-9-]+)` \|.* \| (.*) \|$", re.MULTILINE)


def answers(title: str) -> dict[str, str]:
    """Return the last cell of each row of a section, by the row's name."""
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    return dict(_ROW.findall(rest.partition("\n## ")[0]))
