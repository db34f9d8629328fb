"""Results on stdout: JSON for scripts, tables on a terminal, tab-separated lines otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import click

json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on stdout, for scripts."
)


def print_json(value: object) -> None:
    """Print one JSON document on one line, and flush, since a script may wait for the line.

    It escapes characters that could control a terminal, or that cannot be encoded (half a surrogate pair).
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    click.echo(text if text.isprintable() else "".join(map(_escaped, text)))
    sys.stdout.flush()


def print_fields(values: Mapping[str, object]) -> None:
    """Print aligned ``name  value`` lines."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        click.echo(f"{name:<{width}}  {_shown(value)}")


def print_line(text: str) -> None:
    """Print one line, and flush, since a script may wait for it."""
    click.echo(_shown(text))
    sys.stdout.flush()


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, whole: Collection[str] = ()) -> None:
    """Print a table: with lines on a terminal, tab-separated otherwise.

    Args:
        columns: Titles of the columns.
        rows: One value for each column.
        whole: Columns that a narrow terminal must neither cut nor wrap, because people copy from them. A table with
            such columns has no lines between its cells.
    """
    if not on_terminal():
        for row in (columns, *rows):
            click.echo("\t".join(map(_shown, row)))
        return
    # importing rich takes a fifth of a second, so import it only for a terminal
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold") if whole else Table()
    for column in columns:
        table.add_column(column, no_wrap=column in whole, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(cell)) for cell in row))
    Console().print(table)


def _shown(value: object) -> str:
    """Return a value as text that cannot control a terminal, since anybody may have written ids and names."""
    text = "-" if value is None else str(value)
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _escaped(character: str) -> str:
    """Escape a character of a JSON document; outside strings, all characters are printable."""
    return character if character.isprintable() else json.dumps(character)[1:-1]
