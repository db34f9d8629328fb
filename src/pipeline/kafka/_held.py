"""What a member knows of one partition that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.contracts import Record
from pipeline.kafka._lease import Tenure
from pipeline.kafka._offsets import OffsetTracker


class PartitionWork(Protocol):
    """The records of one partition, in work."""

    @property
    def offsets(self) -> OffsetTracker:
        """What is fetched and what is finished."""
        ...

    def take(self, records: Sequence[Record]) -> None:
        """Begin with these, except those taken before."""
        ...

    @property
    def busy(self) -> int:
        """How many calls of the handler run now."""
        ...

    def wind_down(self) -> None:
        """Begin nothing more; calls that run now may finish."""
        ...

    def cancel(self) -> None:
        """End everything at once."""
        ...


class Held:
    """A partition of this member."""

    def __init__(self, work: PartitionWork, lease: Tenure) -> None:
        self.work = work
        self.lease = lease
        self.committed = -1
        self.paused = False
