"""Sphinx's settings for the documentation site; ``make docs`` builds it from ``docs/``.

The pages name no table of contents: each ``index.md`` gets the pages of its folder, and the first one the sections.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

project = "Card pipeline"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Card pipeline"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_theme_options: dict[str, Any] = {"top_of_page_buttons": []}
myst_heading_anchors = 4
smartquotes = False  # headings and keys keep their own quotes
nitpicky = True  # a link to nothing is a warning, and warnings are errors

SECTIONS: Final = {
    "Tutorial": ["tutorial"],
    "How-to guides": ["how-to"],
    "Reference": ["reference", "reference/python"],
    "Explanation": ["explanation", "decisions"],
}
"""The sections of the first page, with their folders."""

_LINK: Final = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)\s#]+\.md)[^)\s]*\)")
_REQUESTED: Final = re.compile(
    r"<(?:script|img|source|iframe)\b[^>]* src=\"https?:[^>]*>|<link\b[^>]* href=\"https?:[^>]*>"
)
_STYLE: Final = re.compile(r"(?:url\(|@import )[\"']?https?:[^)]*")


def setup(app: Any) -> None:
    """Register what is done beside Sphinx's own work."""
    app.connect("source-read", adapt)
    app.connect("build-finished", refuse_requests)


def adapt(app: Any, name: str, source: list[str]) -> None:
    """Add the table of contents to an ``index`` page; keep only the text of a link to a Markdown file elsewhere."""
    source[0] = _LINK.sub(lambda link: _kept(link, Path(app.srcdir), Path(app.srcdir, name)), source[0])
    folder, _, page = name.rpartition("/")
    if page == "index" and not folder:
        source[0] += "".join(_tree(app, folders, section) for section, folders in SECTIONS.items())
    elif page == "index":
        source[0] += _tree(app, [folder], "")


def _kept(link: re.Match[str], root: Path, page: Path) -> str:
    leads_out = not (page.parent / link[2]).resolve().is_relative_to(root)
    return link[1] if leads_out else link[0]


def _tree(app: Any, folders: list[str], caption: str) -> str:
    pages = [page for folder in folders for page in _pages(Path(app.srcdir), folder, whole=not caption)]
    head = f":caption: {caption}\n" if caption else ""
    return "\n\n```{toctree}\n:hidden:\n" + head + "\n".join(["", *(f"/{page}" for page in pages)]) + "\n```\n"


def _pages(root: Path, folder: str, *, whole: bool) -> list[str]:
    """Return the pages of a folder; of a folder with a first page of its own only that, but for that page itself."""
    if not whole and (root / folder / "index.md").exists():
        return [f"{folder}/index"]
    found = [*(root / folder).glob("*.md"), *(root / folder).glob("*/index.md")]
    names = (str(path.relative_to(root).with_suffix("")) for path in found)
    return sorted(name for name in names if name != f"{folder}/index")


def refuse_requests(app: Any, error: Exception | None) -> None:
    """Fail if a page would ask another host for anything when it is viewed."""
    if error is not None:
        return
    for path in Path(app.outdir).rglob("*"):
        pattern = {".html": _REQUESTED, ".css": _STYLE}.get(path.suffix)
        found = pattern.search(path.read_text("utf-8")) if pattern else None
        if found:
            message = f"{path}: a view of this page would ask another host: {found[0]}"
            raise RuntimeError(message)
