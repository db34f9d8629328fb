"""Alarms about faults that a person must fix to lose no event. All are counted; log lines are rate-limited."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import structlog

from pipeline.observability import Metrics

log = structlog.get_logger(__name__)


class AlarmKind(StrEnum):
    """All kinds of alarms; docs/how-to/runbook.md has the remedy for each."""

    UNVERIFIED = "unverified"
    """Well-formed, fresh requests that no secret verifies: the keys are out of date, or somebody attacks."""
    NO_ACTIVE_SECRET = "no_active_secret"  # noqa: S105 - a kind of alarm, no secret
    """Requests that the ingress cannot verify, because no secret of the source is active."""
    UNSIGNED_PATH = "unsigned_path"
    """Events without a signature on a path that the settings do not list."""
    UNKNOWN_PATH = "unknown_path"
    """Authentic events of an unknown kind, kept in quarantine."""
    QUARANTINED = "quarantined"
    """Authentic but invalid events, kept in quarantine."""
    TOO_LARGE = "too_large"
    """Events refused for their size. Their sender never repeats them."""
    SOURCE_OVERLOADED = "source_overloaded"
    """Requests refused for lack of room: their source, or unknown clients on its path, send too many or too slowly."""


class Alarms:
    """Raises alarms: a metric for each, and an error line at most once per interval, source and kind.

    The line has the number of alarms since the previous line, and no received data. Memory is bounded
    by sources times kinds.

    Args:
        metrics: Counts the alarms.
        interval: Minimum time between two lines for one source and kind, in seconds.
        monotonic: Seconds of a monotonic clock.
    """

    def __init__(self, metrics: Metrics, *, interval: float, monotonic: Callable[[], float]) -> None:
        self._metrics = metrics
        self._interval = interval
        self._monotonic = monotonic
        self._logged: dict[tuple[str, str, AlarmKind], tuple[float, int]] = {}

    def sound(self, source: str, integration: str, kind: AlarmKind, reason: str) -> None:
        """Raise an alarm.

        Args:
            source: Kind of the source, such as ``weavr``.
            integration: Name of the source.
            kind: Kind of the alarm.
            reason: Reason, from a closed set.
        """
        self._metrics.ingress_alarms.labels(integration, kind.value).inc()
        now = self._monotonic()
        what = (source, integration, kind)
        since, unlogged = self._logged.get(what, (now - self._interval, 0))
        if now - since < self._interval:
            self._logged[what] = (since, unlogged + 1)
            return
        self._logged[what] = (now, 0)
        log.error(
            "webhook_alarm", source=source, integration=integration, kind=kind.value, reason=reason, count=unlogged + 1
        )
