"""The peer: polars' streaming engine from file to file."""

from __future__ import annotations

import sys
import time

import polars as pl

from benchmarks.process import report


def luhn_sum(number: pl.Expr, length: int) -> pl.Expr:
    """Return the Luhn sum of numbers of one length."""
    total = pl.lit(0)
    for location in range(length):
        digit = number.str.slice(location, 1).cast(pl.Int32, strict=False)
        if (length - location) % 2 == 0:
            doubled = digit * 2
            digit = pl.when(doubled > 9).then(doubled - 9).otherwise(doubled)  # noqa: PLR2004 - the digit sum
        total += digit
    return total


def main() -> None:
    """Copy every column and add status and message."""
    source, target = sys.argv[1:3]
    begun, cpu = time.perf_counter(), time.process_time()
    number = pl.col("card_number")
    sound = number.str.contains(r"^[0-9]{16}$") & (luhn_sum(number, 16) % 10 == 0)
    pl.scan_csv(source, infer_schema=False).with_columns(
        status=pl.when(sound).then(pl.lit("ok")).otherwise(pl.lit("failed")),
        message=pl.when(sound).then(pl.lit("")).otherwise(pl.lit("card number fails its check digit (Luhn)")),
    ).sink_csv(target)
    report(time.perf_counter() - begun, time.process_time() - cpu)


if __name__ == "__main__":
    main()
