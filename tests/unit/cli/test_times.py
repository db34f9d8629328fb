"""Times and durations on a command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from pipeline.cli.times import Duration, Time, now, shown_duration


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, span: timedelta) -> None:
    assert Duration().convert(text, None, None) == span


@pytest.mark.parametrize("text", ["", "10", "0m", "1.5h", "-2h", "1h30m", "2 h", "2w"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration"):
        Duration().convert(text, None, None)


def test_a_time_has_a_zone() -> None:
    assert Time().convert("2026-01-22T22:43:59Z", None, None) == datetime(2026, 1, 22, 22, 43, 59, tzinfo=UTC)
    with pytest.raises(click.BadParameter, match="with a zone"):
        Time().convert("2026-01-22T22:43:59", None, None)


def test_a_duration_is_a_time_before_now() -> None:
    before = now()
    moment = Time().convert("2h", None, None)
    assert isinstance(moment, datetime)
    assert before - timedelta(hours=2) <= moment <= now() - timedelta(hours=2)


@pytest.mark.parametrize("text", ["yesterday", "9999999d", "earliest", "latest"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a time"):
        Time().convert(text, None, None)


@pytest.mark.parametrize("edge", ["earliest", "latest"])
def test_an_edge_is_accepted_where_it_makes_sense(edge: str) -> None:
    assert Time(edges=True).convert(edge, None, None) == edge


def test_a_time_ahead_is_refused_unless_it_may_be() -> None:
    ahead = (now() + timedelta(hours=1)).isoformat()
    with pytest.raises(click.BadParameter, match="future"):
        Time().convert(ahead, None, None)
    assert Time(future=True).convert(ahead, None, None) == datetime.fromisoformat(ahead)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (172_799, "47 h"),
        (172_800, "2 d"),
    ],
)
def test_a_duration_is_shown_in_its_largest_unit(seconds: float, shown: str) -> None:
    assert shown_duration(timedelta(seconds=seconds)) == shown
