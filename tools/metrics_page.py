"""``docs/reference/metrics.md``: every metric, from the one list in ``observability/metrics.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from pipeline.observability import KafkaMetrics, Metrics, SubscriberMetrics
from tools.markdown import page, table

_INTRO: Final = """\
Each process serves its metrics in the Prometheus format, at `/metrics` on its management port (`[management]`):

```
curl --silent http://127.0.0.1:8081/metrics | grep ^pipeline_kafka_connected
```

A subscriber has its metrics in `subscriber.registry`, and your service serves them. All names begin with `pipeline_`.
Counters end in `_total`; histograms have `_bucket`, `_sum` and `_count`. Times are in seconds, sizes in bytes.

The values of labels come from fixed lists: the integrations and topics in the settings, stages,
[error codes](errors.md) and statuses. No label names a job or a card. The alert rules are in
`deploy/k8s/components/alerts`, and the [runbook](../how-to/runbook.md) says what to do about each alert."""


_GROUPS: Final = {
    "ingress": "Ingress",
    "callback": "Callbacks",
    "token": "Callbacks",
    "store": "Job store and files",
    "transfer": "Job store and files",
    "audit": "Audit log",
    "clock": "Process",
    "loop": "Process",
    "build": "Process",
    "topic": "Process",
}
"""The section of a metric, by the first word of its name. All other metrics are about jobs."""


def render() -> str:
    """Return the page."""
    kafka, pipeline, subscriber = (_metrics(one()) for one in (KafkaMetrics, Metrics, SubscriberMetrics))
    sections: dict[str, list[MetricWrapperBase]] = {"Kafka: all processes and subscribers": list(kafka.values())}
    sections["Subscribers"] = [one for name, one in subscriber.items() if name not in kafka]
    for name, metric in pipeline.items():
        if name not in kafka:
            sections.setdefault(_GROUPS.get(name.partition("_")[0], "Jobs"), []).append(metric)
    return page("Metrics", _INTRO, *(f"## {title}\n\n{_table(metrics)}" for title, metrics in sections.items()))


def _metrics(registered: object) -> dict[str, MetricWrapperBase]:
    return {name: one for name, one in vars(registered).items() if isinstance(one, MetricWrapperBase)}


def _table(metrics: list[MetricWrapperBase]) -> str:
    return table(("Metric", "Type", "Labels", "Says"), (tuple(_cells(metric)) for metric in metrics))


def _cells(metric: Any) -> Iterator[str]:
    (family,) = metric.describe()
    suffix = "_total" if isinstance(metric, Counter) else ""
    yield f"`{family.name}{suffix}`"
    yield "histogram" if isinstance(metric, Histogram) else family.type
    yield ", ".join(f"`{label}`" for label in metric._labelnames) or "none"  # noqa: SLF001 - the library shows them nowhere else
    yield family.documentation
