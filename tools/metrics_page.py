"""``docs/reference/metrics.md``: every metric, from the one list in ``observability/metrics.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from pipeline.observability import KafkaMetrics, Metrics, SubscriberMetrics
from tools.markdown import page, table

_INTRO: Final = """\
Each process serves its metrics at `/metrics` of its management port (`[management]`) in the format of Prometheus:

```
curl --silent http://127.0.0.1:8081/metrics | grep ^pipeline_kafka_connected
```

A subscriber keeps its metrics in `subscriber.registry`, which the service around it serves. Names begin with
`pipeline_`. A counter ends in `_total`; a histogram has `_bucket`, `_sum` and `_count`. Times are seconds, sizes bytes.

Values of labels come from closed sets: integrations and topics of the settings, stages, [error codes](errors.md) and
statuses. No label names a job or a card. The alert rules are in `deploy/k8s/components/alerts`; the
[runbook](../how-to/runbook.md) says what to do about each."""


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
"""First word of a metric of the pipeline -> its section; all others are about jobs."""


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
