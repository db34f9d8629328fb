"""``docs/decisions/index.md``: the decision records, by number."""

from __future__ import annotations

from pathlib import Path

from tools.markdown import page


def render(docs: Path) -> str:
    """Return the page."""
    records = sorted((docs / "decisions").glob("[0-9]*.md"))
    links = "\n".join(f"- [{_title(path)}]({path.name})" for path in records)
    return page("Decisions", "Why the pipeline is built as it is: context, decision, consequences.", links)


def _title(path: Path) -> str:
    first, _, _ = path.read_text("utf-8").partition("\n")
    return first.removeprefix("# ")
