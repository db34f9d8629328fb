"""Words that all generated pages share."""

from __future__ import annotations

import pytest

from tools.markdown import duration


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (7 * 86_400_000, "7 days"),
        (86_400_000, "1 day"),
        (5_400_000, "90 minutes"),
        (900_000, "15 minutes"),
        (1500, "1500 ms"),
        (1000, "1 second"),
    ],
)
def test_a_duration_is_said_in_the_largest_unit_that_is_exact(milliseconds: int, said: str) -> None:
    assert duration(milliseconds) == said
