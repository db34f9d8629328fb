from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from pipeline.observability import Durations

BOUNDS = (0.01, 0.05, 0.1, 1.0)
SECONDS = st.one_of(st.floats(0, 0.002), st.floats(0, 100), st.sampled_from(BOUNDS))


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def histogram() -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    return registry, Histogram("seconds", "About", ["stage"], registry=registry, buckets=BOUNDS).labels("a")


@given(st.lists(SECONDS, max_size=100))
def test_the_histogram_holds_what_observe_would_have_made_of_the_durations(seconds: list[float]) -> None:
    registry, plain = histogram()
    ours, many = histogram()
    durations = Durations(many)
    for one in seconds:
        plain.observe(one)
        durations.add(one)
    durations.flush()
    expected, actual = samples(registry), samples(ours)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert abs(actual[name] - value) <= 1e-9 * max(1.0, value)


def test_a_long_duration_is_shown_at_once_and_short_ones_soon() -> None:
    registry, many = histogram()
    durations = Durations(many)
    durations.add(0.5)
    assert samples(registry)["seconds_count", ""] == 1
    for _ in range(32):
        durations.add(0.0001)
    assert samples(registry)["seconds_count", ""] == 33
