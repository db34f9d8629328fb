"""Counts of unauthenticated requests: a flood of them must not flood the audit log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog
from pydantic import JsonValue

from pipeline.contracts import AuditAction, AuditEvent, audit_record
from pipeline.errors import Overloaded, TransientError
from pipeline.kafka.protocols import Publisher
from pipeline.webhooks.records import ACTOR

log = structlog.get_logger(__name__)

_INTERVAL: Final = 60.0
"""At most one audit event a minute, however many requests are refused. The metric shows an attack sooner."""


class RefusalCounts:
    """Counts refusals by integration and reason, and writes them to the audit log once per interval.

    It keeps an event whose publication failed and sends it again unchanged, so nothing is counted twice; refusals that
    come meanwhile go into the next event. Memory is bounded by integrations times reasons. A crash loses the counts of
    one interval.

    Args:
        publisher: Where the events go.
        clock: Aware UTC time.
        instance: Distinguishes the events of this process from those of the other ingress processes.
        deadline: Seconds that one publication may take.
        interval: Seconds between two events.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        clock: Callable[[], datetime],
        instance: str,
        deadline: float,
        interval: float = _INTERVAL,
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._instance = instance
        self._interval = interval
        self._deadline = deadline
        self._counts: Counter[tuple[str, str]] = Counter()
        self._since = clock()
        self._unsent: AuditEvent | None = None

    def count(self, integration: str, reason: str) -> None:
        """Count one refusal."""
        self._counts[integration, reason] += 1

    async def run(self) -> None:
        """Flush once per interval, for ever; ends only by cancellation or by an unexpected error."""
        while True:
            await asyncio.sleep(self._interval)
            await self.flush()

    async def flush(self) -> None:
        """Publish what was counted since the last time, if anything. While the broker is unavailable, keep it."""
        if await self._send() and self._counts:
            self._unsent = self._take()
            await self._send()

    async def _send(self) -> bool:
        """Return whether nothing is left unsent."""
        if self._unsent is None:
            return True
        try:
            async with asyncio.timeout(self._deadline):
                await self._publisher.publish(audit_record(self._unsent))
        except (TransientError, Overloaded, TimeoutError) as error:
            log.warning("refusal_counts_unsent", reason=getattr(error, "code", "deadline"))
            return False
        self._unsent = None
        return True

    def _take(self) -> AuditEvent:
        since, until = self._since, self._clock()
        counts: dict[str, JsonValue] = {}
        for (integration, reason), number in sorted(self._counts.items()):
            counts[f"{integration}/{reason}"] = number
        self._counts.clear()
        self._since = until
        return AuditEvent(
            id=AuditEvent.id_of(AuditAction.WEBHOOK_REFUSALS, self._instance, since.isoformat(), until.isoformat()),
            action=AuditAction.WEBHOOK_REFUSALS,
            at=until,
            actor=ACTOR,
            detail={
                "instance": self._instance,
                "since": since.isoformat(),
                "until": until.isoformat(),
                "counts": counts,
            },
        )
