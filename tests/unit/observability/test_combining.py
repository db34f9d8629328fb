"""Metrics of several processes as those of one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from pipeline.observability import Metrics
from pipeline.observability.combining import CombinedMetrics, farthest, snapshot
from pipeline.observability.metrics import GAUGES_NOT_SUMMED


def told(metrics: Metrics) -> list[object]:
    """What a process tells its supervisor."""
    said: list[object] = json.loads(json.dumps(snapshot(metrics.registry.collect())))
    return said


def samples(combined: CombinedMetrics, name: str) -> list[Sample]:
    return [one for family in combined.collect() for one in family.samples if one.name == name]


def value(combined: CombinedMetrics, name: str) -> float:
    (sample,) = samples(combined, name)
    return float(sample.value)


def two(first: Metrics, second: Metrics) -> CombinedMetrics:
    combined = CombinedMetrics(GAUGES_NOT_SUMMED)
    for number, metrics in enumerate((first, second), 1):
        combined.update(number, told(metrics))
    return combined


def test_counters_histograms_and_most_gauges_are_summed() -> None:
    first, second = Metrics(), Metrics()
    first.ingress_requests.labels("acme", "200", "accepted").inc(3)
    second.ingress_requests.labels("acme", "200", "accepted").inc(4)
    second.ingress_requests.labels("acme", "503", "overloaded").inc()
    first.ingress_connections.set(5)
    second.ingress_connections.set(6)
    first.loop_lag_seconds.observe(0.002)
    second.loop_lag_seconds.observe(0.3)
    combined = two(first, second)
    assert [(one.labels["status"], one.value) for one in samples(combined, "pipeline_ingress_requests_total")] == [
        ("200", 7),
        ("503", 1),
    ]
    assert value(combined, "pipeline_ingress_connections") == 11
    assert value(combined, "pipeline_loop_lag_seconds_count") == 2
    assert value(combined, "pipeline_loop_lag_seconds_sum") == 0.302
    buckets = {one.labels["le"]: one.value for one in samples(combined, "pipeline_loop_lag_seconds_bucket")}
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.5"], buckets["+Inf"]) == (0, 1, 2, 2)


def test_a_gauge_whose_sum_says_nothing_shows_one_process() -> None:
    first, second = Metrics(version="1"), Metrics(version="1")
    first.kafka_connected.set(1)
    second.kafka_connected.set(0)
    first.clock_offset_seconds.labels("kafka").set(0.1)
    second.clock_offset_seconds.labels("kafka").set(-0.4)
    combined = two(first, second)
    assert value(combined, "pipeline_kafka_connected") == 0
    assert value(combined, "pipeline_build_info") == 1
    assert value(combined, "pipeline_clock_offset_seconds") == -0.4


def test_an_unknown_value_is_left_out() -> None:
    """The supervisor has no broker of its own."""
    first, second = Metrics(), Metrics()
    second.kafka_connected.set(1)
    combined = two(first, second)
    assert value(combined, "pipeline_kafka_connected") == 1
    assert math.isnan(value(combined, "pipeline_deadline_seconds_left_min"))


def test_the_counts_of_ended_processes_stay_and_their_gauges_do_not() -> None:
    """Otherwise Prometheus would take a lower sum for a restart, and count everything again."""
    first, second = Metrics(), Metrics()
    for one in (first, second):
        one.ingress_requests.labels("acme", "200", "accepted").inc(10)
        one.ingress_connections.set(1)
    combined = two(first, second)
    for _ in range(2):
        combined.end(1)  # the second time it is unknown already
    combined.update(1, told(Metrics()))
    assert value(combined, "pipeline_ingress_requests_total") == 20
    assert value(combined, "pipeline_ingress_connections") == 1
    combined.end(1)
    combined.end(2)
    assert value(combined, "pipeline_ingress_requests_total") == 20
    assert samples(combined, "pipeline_ingress_connections") == []


def test_it_is_a_collector_of_a_registry() -> None:
    combined = two(Metrics(), Metrics())
    registry = CollectorRegistry()
    registry.register(combined)
    names = {family.name for family in registry.collect()}
    assert names == {family.name for family in Metrics().registry.collect()}


def test_each_rule_belongs_to_a_gauge() -> None:
    kinds = {family.name: family.type for family in Metrics().registry.collect()}
    assert {kinds[name] for name in GAUGES_NOT_SUMMED} == {"gauge"}


def test_the_farthest_number_keeps_its_sign() -> None:
    numbers: Iterable[float] = (0.2, -3.0, 1.0)
    assert farthest(numbers) == -3.0
