"""The list of metrics."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from pipeline.observability import KafkaMetrics, Metrics, SubscriberMetrics, watch_loop_lag

CLOSED = {
    "integration",
    "status",
    "reason",
    "kind",
    "rule",
    "topic",
    "code",
    "stage",
    "state",
    "partition",
    "result",
    "outcome",
    "direction",
    "purpose",
    "op",
    "version",
    "witness",
}


def every(*lists: KafkaMetrics) -> dict[str, MetricWrapperBase]:
    """Return all metrics by attribute."""
    return {
        name: value
        for metrics in lists
        for name, value in vars(metrics).items()
        if isinstance(value, MetricWrapperBase)
    }


def test_names_follow_the_conventions() -> None:
    """Attribute and exposed name agree; durations are in seconds, sizes in bytes."""
    found = every(Metrics(), SubscriberMetrics())
    assert len(found) > 25
    for name, metric in found.items():
        assert metric._name == f"pipeline_{name}"
        assert metric._documentation
        if isinstance(metric, Histogram):
            assert "_seconds" in name


def test_labels_come_from_closed_sets() -> None:
    """No job, card, address or text can become a label."""
    assert {
        label for metric in every(Metrics(), SubscriberMetrics()).values() for label in metric._labelnames
    } == CLOSED


def test_registries_are_apart() -> None:
    """Two processes' worth of metrics can live in one test."""
    first, second = Metrics(version="1.2"), Metrics()
    first.jobs.labels("acme", "process", "done").inc()
    assert b'pipeline_jobs_total{integration="acme",outcome="done",stage="process"} 1.0' in generate_latest(
        first.registry
    )
    assert b'pipeline_build_info{version="1.2"} 1.0' in generate_latest(first.registry)
    assert b"acme" not in generate_latest(second.registry)


async def test_loop_lag_is_observed_until_cancelled() -> None:
    """Each look is one observation, never below zero."""
    metrics = Metrics()
    task = asyncio.ensure_future(watch_loop_lag(metrics.loop_lag_seconds, interval=0.001))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    samples = {sample.name: sample.value for metric in metrics.loop_lag_seconds.collect() for sample in metric.samples}
    assert samples["pipeline_loop_lag_seconds_count"] >= 1
    assert samples["pipeline_loop_lag_seconds_sum"] >= 0


def test_a_process_without_a_watch_says_nothing_of_deadlines() -> None:
    """Zero seconds left would raise an alarm in each of them."""
    assert "pipeline_deadline_seconds_left_min NaN" in generate_latest(Metrics().registry).decode()
