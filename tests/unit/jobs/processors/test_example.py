"""The example runs as its page says, found by ``module:name``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.paths import ROOT

from pipeline.testing import run_processor

CARD = "4111111111111111"


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the example where Python finds it."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    yield
    sys.modules.pop("loyalty_processor", None)


async def test_the_example_credits_points_up_to_its_limit() -> None:
    """It also fails a card whose points are not a number."""
    cards = [{"card_number": CARD, "points": points} for points in ("20", "700", "x")]
    rows = await run_processor("loyalty_processor:Loyalty", cards, limit=500)
    assert rows == [
        {"card_number": CARD, "points": "20", "status": "ok", "message": "", "credited": "20"},
        {"card_number": CARD, "points": "700", "status": "ok", "message": "", "credited": "500"},
        {
            "card_number": CARD,
            "points": "x",
            "status": "failed",
            "message": "points is not a whole number",
            "credited": "",
        },
    ]


def test_the_page_shows_the_example_as_it_is() -> None:
    """What people copy is what is tested."""
    page = (ROOT / "docs" / "how-to" / "write-a-processor.md").read_text(encoding="utf-8")
    assert (ROOT / "examples" / "loyalty_processor.py").read_text(encoding="utf-8").strip() in page
