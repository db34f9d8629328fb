"""The checks behind the probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """The result of one check.

    Attributes:
        ok: Whether the component can do its work.
        message: For the person who asks why not; free of secrets. Shown to whoever reaches the management port.
    """

    ok: bool
    message: str = "ok"


Check = Callable[[], Health]
"""Says from memory how a component is: it does no I/O and never blocks, since probes come every few seconds."""
