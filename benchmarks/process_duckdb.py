"""A peer: DuckDB from file to file."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from benchmarks.process import report


def luhn_sum(column: str, length: int) -> str:
    """Return SQL for the Luhn sum of numbers of one length."""
    terms = []
    for location in range(1, length + 1):
        digit = f"(ascii(substr({column}, {location}, 1)) - 48)"
        doubled = (length - location) % 2 == 1
        terms.append(f"(CASE WHEN {digit} > 4 THEN 2 * {digit} - 9 ELSE 2 * {digit} END)" if doubled else digit)
    return " + ".join(terms)


def main() -> None:
    """Copy every column and add status and message."""
    duckdb: Any = importlib.import_module("duckdb")
    source, target = sys.argv[1:3]
    begun, cpu = time.perf_counter(), time.process_time()
    sound = f"regexp_full_match(card_number, '[0-9]{{16}}') AND ({luhn_sum('card_number', 16)}) % 10 = 0"
    query = (
        f"SELECT * EXCLUDE sound, CASE WHEN sound THEN 'ok' ELSE 'failed' END AS status, "  # noqa: S608 - no input
        f"CASE WHEN sound THEN '' ELSE 'card number fails its check digit (Luhn)' END AS message "
        f"FROM (SELECT *, {sound} AS sound FROM read_csv('{source}', header = true, delim = ',', all_varchar = true))"
    )
    duckdb.execute(f"COPY ({query}) TO '{target}' (FORMAT csv, HEADER)")
    report(time.perf_counter() - begun, time.process_time() - cpu)


if __name__ == "__main__":
    main()
