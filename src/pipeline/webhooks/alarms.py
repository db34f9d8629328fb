"""Alarms: what a person must look at so that no event is lost. Each is counted; log lines are rate-limited."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import structlog

from pipeline.observability import Metrics

log = structlog.get_logger(__name__)


class AlarmKind(StrEnum):
    """All kinds of alarms; docs/how-to/runbook.md says for each what to do."""

    UNVERIFIED = "unverified"
    """Well-formed, fresh requests that no secret verifies: the keys are out of date, or an attacker guesses."""
    NO_ACTIVE_SECRET = "no_active_secret"  # noqa: S105 - a kind of alarm, no secret
    """Requests that cannot be verified, because no secret of the source is active."""
    UNSIGNED_PATH = "unsigned_path"
    """Events without signature on a path that the configuration does not name."""
    UNKNOWN_PATH = "unknown_path"
    """Authentic events of an unknown kind: kept in quarantine."""
    QUARANTINED = "quarantined"
    """Authentic events that do not fit: kept in quarantine."""
    TOO_LARGE = "too_large"
    """Events that were refused for their size, and that their sender never repeats."""
    SOURCE_OVERLOADED = "source_overloaded"
    """Requests without room: their source, or unknown clients on its path, send too many or too slowly."""


class Alarms:
    """Raises alarms: a metric for each, and an error line at most once per interval, source and kind.

    The line says how many there were since the one before, and holds nothing of what was received. Memory is bounded
    by sources times kinds.

    Args:
        metrics: Where they are counted.
        interval: Shortest time between two lines of one source and kind, in seconds.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(self, metrics: Metrics, *, interval: float, monotonic: Callable[[], float]) -> None:
        self._metrics = metrics
        self._interval = interval
        self._monotonic = monotonic
        self._logged: dict[tuple[str, str, AlarmKind], tuple[float, int]] = {}

    def sound(self, source: str, integration: str, kind: AlarmKind, reason: str) -> None:
        """Raise one.

        Args:
            source: Kind of the source, such as ``weavr``.
            integration: Its name.
            kind: What it is about.
            reason: Exact reason, from a closed set.
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
