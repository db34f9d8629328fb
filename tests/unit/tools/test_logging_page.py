"""The page of log lines lists what the source writes."""

from __future__ import annotations

import re
from pathlib import Path

from support.paths import ROOT

from tools import logging_page


def test_name_level_package_and_fields_of_each_line_are_listed_once(tmp_path: Path) -> None:
    package = tmp_path / "pipeline" / "bus"
    package.mkdir(parents=True)
    (package / "a.py").write_text('async def f():\n    log.info("record_kept", offset=1)\n    other.info("no_line")\n')
    (package / "b.py").write_text(
        "def g(grave, **more):\n"
        '    _log.warning("record_kept", offset=2, exc_info=True, **more)\n'
        "    write = log.error if grave else log.debug\n"
        '    write("thing_done", why=1)\n'
    )
    assert logging_page.render(tmp_path).splitlines()[-2:] == [
        "| `record_kept` | info or warning | bus | `offset` |",
        "| `thing_done` | debug or error | bus | `why` |",
    ]


def test_every_call_of_a_logger_in_the_source_is_found() -> None:
    """The other way round, by text: a line that the page's generator overlooked would be missing in the closed set."""
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    written = set(re.findall(r'\b_?log\.(?:debug|info|warning|error|critical)\(\s*"(\w+)"', text))
    page = logging_page.render(ROOT / "src")
    assert len(written) > 40
    assert sorted(name for name in written if f"| `{name}` |" not in page) == []
