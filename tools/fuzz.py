"""Runs the property tests with new examples for some time: ``python -m tools.fuzz [--seconds N] [pytest options]``."""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

SELECTION: Final = (
    "tests/unit/contracts",
    "tests/unit/jobs",
    "tests/unit/outbound",
    "tests/unit/webhooks",
    "tests/contract/test_openapi_requests.py",
)
"""Tests of code that reads data of others; ``-m hypothesis`` selects their property tests."""


def command(seed: int, options: Sequence[str]) -> list[str]:
    """Return the command of one round."""
    profile = ["--hypothesis-profile=explore", f"--hypothesis-seed={seed}"]
    selection = [] if any(Path(option.partition("::")[0]).exists() for option in options) else SELECTION
    return [sys.executable, "-m", "pytest", "-q", "-x", "-m", "hypothesis", *profile, *options, *selection]


def fuzz(
    seconds: float,
    options: Sequence[str],
    *,
    run: Callable[[Sequence[str]], int] = subprocess.call,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Run rounds until the time is over or a round fails; return the exit code of the last round.

    A round that has begun is finished, so the first one always runs.

    Args:
        seconds: No round begins after this time.
        options: For pytest; a path among them replaces the selection.
        run: Runs a command and returns its exit code.
        monotonic: Seconds of a monotonic clock.
    """
    end = monotonic() + seconds
    rounds = code = 0
    while code == 0 and (rounds == 0 or monotonic() < end):
        rounds += 1
        seed = secrets.randbelow(2**32)
        print(f"round {rounds}, --hypothesis-seed={seed}", flush=True)
        code = run(command(seed, options))
    print(f"{rounds} rounds, {'no failure' if code == 0 else 'stopped by a failure: the same seed repeats it'}")
    return code


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="no round begins after this time (default: 600)")
    parsed, options = parser.parse_known_args(arguments)
    return fuzz(parsed.seconds, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
