"""Following a verification step by step, for whoever must find out why it fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, runtime_checkable

from pipeline.contracts import Headers

Note = Callable[[str, str], None]
"""Takes the name of a step that went well, and one line about it: no secret, no signature, nothing computed."""


def unnoted(_step: str, _detail: str) -> None:
    """Keep nothing."""


@runtime_checkable
class Followed(Protocol):
    """A scheme whose steps can be followed."""

    def follow(self, headers: Headers, body: bytes, now: datetime, note: Note) -> str:
        """Do what ``Scheme.verify`` does, and note each step after it went well."""
        ...
