"""Compares the clock of a process with Kafka's whenever something is published."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

from pipeline.app.ports import ConnectedPublisher
from pipeline.contracts import OutgoingRecord, RecordPosition, TopicName
from pipeline.errors import PipelineError
from pipeline.observability.clock import KAFKA, CheckedClock, from_milliseconds

_PRECISION: Final = timedelta(milliseconds=1)


class ComparingPublisher:
    """A publisher that compares the time before and after a publication with the broker's time of the append.

    It does so once a second. Topics without ``message.timestamp.type=LogAppendTime`` have no such time; it looks once a
    second whether they still have none.
    """

    def __init__(self, publisher: ConnectedPublisher, clock: CheckedClock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._without_time: dict[TopicName, float] = {}

    @property
    def problem(self) -> PipelineError | None:
        """See ConnectedPublisher."""
        return self._publisher.problem

    def publish(self, record: OutgoingRecord) -> Coroutine[Any, Any, RecordPosition]:
        """See Publisher. Most publications go straight to the inner publisher."""
        due = self._clock.due(KAFKA) and time.monotonic() - self._without_time.get(record.topic, -1.0) >= 1
        return self._compared(record) if due else self._publisher.publish(record)

    async def _compared(self, record: OutgoingRecord) -> RecordPosition:
        began = self._clock()
        position = await self._publisher.publish(record)
        if position.appended_ms is None:
            self._without_time[record.topic] = time.monotonic()
        else:
            at = from_milliseconds(position.appended_ms)
            self._clock.compare(KAFKA, at, began=began, ended=self._clock(), precision=_PRECISION)
        return position
