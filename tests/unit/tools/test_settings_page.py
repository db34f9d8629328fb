"""The page of settings."""

from __future__ import annotations

import re
from collections import Counter

from tools import settings_page


def test_the_table_of_groups_links_each_table_once() -> None:
    linked = re.findall(r"\[`(\[+[^`]+)`\]\(#", settings_page.render().partition("\n## ")[0])
    assert [name for name, count in Counter(linked).items() if count > 1] == []
    assert {"[store]", "[ecs.NAME.webhook]", "[parking.retry]"} <= set(linked)


def test_only_groups_have_headings_of_the_second_level() -> None:
    """A table without keys of its own does not swallow the table inside of it."""
    headings = re.findall(r"^## (.+)$", settings_page.render(), re.MULTILINE)
    assert headings == ["To start", "eCard Systems", "Weavr", "Other senders", "Security", "Operation"]
