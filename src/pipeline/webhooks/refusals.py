"""Logs and audits refused requests, without letting a flood of requests flood the logs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import structlog
from pydantic import JsonValue

from pipeline.contracts import AuditAction, AuditEvent, audit_record
from pipeline.errors import Overloaded, TransientError
from pipeline.kafka.protocols import Publisher
from pipeline.webhooks.records import ACTOR

log = structlog.get_logger(__name__)

_LINES: Final = 10
"""Maximum number of lines per interval for one kind of refusal, so that a flood cannot fill the disk."""
_SERVER_ERROR: Final = 500

_INTERVAL: Final = 60.0
"""Seconds between two audit events, however many requests are refused. The metric shows an attack earlier."""


class RefusalLog:
    """Logs refused requests: a few lines a minute for each kind, then one line with the number of the rest.

    Memory is bounded by integrations times statuses times reasons.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def refused(self, integration: str, status: int, reason: str, client: str, known: Mapping[str, str]) -> None:
        """Log a refusal, unless there were already many of its kind.

        Args:
            integration: Name of its source, or ``unknown``.
            status: HTTP status of the answer.
            reason: Reason, from a closed set.
            client: Address of the sender.
            known: Loggable facts about an authentic event.
        """
        kind = (integration, status, reason)
        self._seen[kind] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.flush)
        if self._seen[kind] <= _LINES:
            write = log.error if status >= _SERVER_ERROR else log.warning
            write("webhook_refused", integration=integration, status=status, reason=reason, client=client, **known)

    def flush(self) -> None:
        """Log the number of omitted lines, and start again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for (integration, status, reason), seen in self._seen.items():
            if seen > _LINES:
                left_out = seen - _LINES
                log.warning(
                    "webhook_refusals", integration=integration, status=status, reason=reason, not_logged=left_out
                )
        self._seen.clear()


class RefusalCounts:
    """Counts refusals by integration and reason, and writes them to the audit log once per interval.

    If a publication fails, it keeps the event and sends it again unchanged, so that nothing is counted twice. Refusals
    in the meantime go into the next event. Memory is bounded by integrations times reasons. A crash loses the counts of
    one interval.

    Args:
        publisher: Publishes the events.
        clock: Aware UTC time.
        instance: Distinguishes the events of this process from those of the other ingress processes.
        deadline: Maximum duration of one publication, in seconds.
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
        """Flush once per interval, until cancelled or until an unexpected error."""
        while True:
            await asyncio.sleep(self._interval)
            await self.flush()

    async def flush(self) -> None:
        """Publish the new counts, if any. Keep them while the broker is unavailable."""
        if await self._send() and self._counts:
            self._unsent = self._take()
            await self._send()

    async def _send(self) -> bool:
        """Send the pending event; return whether nothing is left to send."""
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
