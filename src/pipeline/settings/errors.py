"""What is wrong with the settings: all of it, not only the first."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import FatalError


class ConfigError(FatalError):
    """The settings cannot be used. Nothing was started.

    Attributes:
        problems: One line each: the full key, the rule, and what to write. Free of secret values.
    """

    def __init__(self, problems: Sequence[str], *, code: str = "config_invalid") -> None:
        """Take all problems; the message holds them line by line."""
        super().__init__(code, "\n".join(problems))
        self.problems = tuple(problems)
