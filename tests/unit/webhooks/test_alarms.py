"""Alarms are counted always and logged now and then."""

from __future__ import annotations

from structlog.testing import capture_logs

from pipeline.observability import Metrics
from pipeline.webhooks.alarms import AlarmKind, Alarms


class Time:
    """Seconds of a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_counted_and_logged_once_per_interval() -> None:
    """The next line says how many there were since the one before."""
    metrics, time = Metrics(), Time()
    alarms = Alarms(metrics, interval=60.0, monotonic=time)
    with capture_logs() as logs:
        for _ in range(500):
            alarms.sound("weavr", "acme", AlarmKind.UNVERIFIED, "not_verified")
        time.now += 60
        alarms.sound("weavr", "acme", AlarmKind.UNVERIFIED, "not_verified")
    labels = {"integration": "acme", "kind": "unverified"}
    assert metrics.registry.get_sample_value("pipeline_ingress_alarms_total", labels) == 501
    assert [line["count"] for line in logs] == [1, 500]
    assert logs[0] == {
        "event": "webhook_alarm",
        "log_level": "error",
        "source": "weavr",
        "integration": "acme",
        "kind": "unverified",
        "reason": "not_verified",
        "count": 1,
    }


def test_one_alarm_does_not_hide_another() -> None:
    """Each source and each kind has its own line."""
    alarms = Alarms(Metrics(), interval=60.0, monotonic=Time())
    with capture_logs() as logs:
        for integration in ("acme", "other"):
            for kind in AlarmKind:
                alarms.sound("weavr", integration, kind, kind.value)
    assert len(logs) == 2 * len(AlarmKind)
