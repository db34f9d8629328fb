"""What somebody must look at, lest events be lost: counted always, logged now and then."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import structlog

from pipeline.observability import Metrics

log = structlog.get_logger(__name__)


class AlarmKind(StrEnum):
    """The closed set; docs/runbook.md says for each what to do."""

    UNVERIFIED = "unverified"
    """Well-formed, fresh requests that no secret verifies: the keys are out of date, or somebody guesses."""
    NO_ACTIVE_SECRET = "no_active_secret"  # noqa: S105 - a kind of alarm, no secret
    """Requests that cannot be verified, since every secret of the source is out of its dates."""
    UNSIGNED_PATH = "unsigned_path"
    """Events without signature, whose path no configuration names."""
    UNKNOWN_PATH = "unknown_path"
    """Authentic events of a kind that nobody knows: kept in quarantine."""
    QUARANTINED = "quarantined"
    """Authentic events that are not understood: kept in quarantine."""
    TOO_LARGE = "too_large"
    """Events that were refused for their size, which their sender never repeats."""


class Alarms:
    """Raises alarms: a metric for each, and an error line at most once per interval, source and kind.

    The line says how many there were since the one before; it holds nothing of what was received. Memory is bounded
    by sources times kinds.

    Args:
        metrics: Where they are counted.
        interval: Least seconds between two lines of one source and kind.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(self, metrics: Metrics, *, interval: float, monotonic: Callable[[], float]) -> None:
        self._metrics = metrics
        self._interval = interval
        self._monotonic = monotonic
        self._told: dict[tuple[str, str, AlarmKind], tuple[float, int]] = {}

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
        since, untold = self._told.get(what, (now - self._interval, 0))
        if now - since < self._interval:
            self._told[what] = (since, untold + 1)
            return
        self._told[what] = (now, 0)
        log.error(
            "webhook_alarm", source=source, integration=integration, kind=kind.value, reason=reason, count=untold + 1
        )
