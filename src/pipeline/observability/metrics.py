"""The list of all metrics. Tests check dashboards and alerts against it.

Label values come from closed sets: integration names and topics (from the settings), stages, error codes and
statuses. They are never a job, a card, an address or a text, because each value makes a new time series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from pipeline.observability.combining import Combine, farthest

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets in seconds for one request, one publication or one object."""
_SLOW: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""Buckets in seconds for a chunk, or for handling a record (a whole file)."""
_LEFT: Final = (0.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""Buckets in seconds for the time left before a deadline."""

GAUGES_NOT_SUMMED: Final[Mapping[str, Combine]] = {
    "pipeline_build_info": max,
    "pipeline_clock_offset_seconds": farthest,
    "pipeline_kafka_connected": min,
    "pipeline_topic_differences": max,
    "process_max_fds": min,
    "process_start_time_seconds": min,
}
"""Gauges whose sum over the processes of an ingress makes no sense. Each shows the value of one process."""


class KafkaMetrics:
    """The metrics of publishing and consuming, in their own registry (never the library's global one).

    The composition root makes one and passes it to the packages. Updates are cheap and thread-safe. Units are base
    units (seconds, bytes). Exposed counters end in ``_total``.

    Args:
        registry: Default: a new one.
    """

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        self.registry: Final = registry if registry is not None else CollectorRegistry(auto_describe=True)
        self._publishing()
        self._consuming()

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"pipeline_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"pipeline_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, *labels: str, buckets: tuple[float, ...] = _FAST) -> Histogram:
        return Histogram(f"pipeline_{name}", about, labels, registry=self.registry, buckets=buckets)

    def _publishing(self) -> None:
        self.publish_seconds = self._histogram(
            "publish_seconds", "Seconds from sending a record until every in-sync replica has acknowledged it", "topic"
        )
        self.kafka_connected = self._gauge(
            "kafka_connected", "1 if a broker answered the publisher in the last few seconds, 0 if not"
        )
        self.kafka_connected.set(float("nan"))  # 0 would raise an alarm in processes without a publisher
        self.publish_failures = self._counter(
            "publish_failures", "Publications that ended without an acknowledgement, by error code", "topic", "code"
        )
        self.sends_in_flight = self._gauge("sends_in_flight", "Records sent and not yet acknowledged")

    def _consuming(self) -> None:
        self.consumer_lag = self._gauge(
            "consumer_lag",
            "Records between the committed offset and the end of a partition",
            "stage",
            "topic",
            "partition",
        )
        self.consumer_span = self._gauge(
            "consumer_span",
            "Offsets between the lowest unfinished and the highest fetched record of a partition",
            "stage",
            "topic",
            "partition",
        )
        self.consumer_in_flight = self._gauge("consumer_in_flight", "Records being handled now", "stage")
        self.consumer_handle_seconds = self._histogram(
            "consumer_handle_seconds", "Seconds that one call of a handler took", "stage", buckets=_SLOW
        )
        self.consumer_retries = self._counter(
            "consumer_retries", "Records that will be handled again, by error code", "stage", "code"
        )
        self.consumer_dead_letters = self._counter(
            "consumer_dead_letters", "Records moved to a dead-letter topic, by error code", "stage", "topic", "code"
        )
        self.consumer_commits = self._counter(
            "consumer_commits", "Commits of offsets by result (ok, failed)", "stage", "result"
        )
        self.consumer_rebalances = self._counter(
            "consumer_rebalances", "Partition assignments that this member has received", "stage"
        )
        self.consumer_left_uncommitted = self._counter(
            "consumer_left_uncommitted",
            "Records that were started but not committed when their partition was lost; they may be handled again",
            "stage",
        )
        self.consumer_paused = self._gauge("consumer_paused", "Partitions paused by back-pressure", "stage")
        self.consumer_heartbeat_age_seconds = self._gauge(
            "consumer_heartbeat_age_seconds", "Seconds since the group coordinator last answered a heartbeat", "stage"
        )


class SubscriberMetrics(KafkaMetrics):
    """All metrics of a subscriber. It registers none of a server's metrics in another team's process."""

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry=registry)
        self._repeat_rule()

    def _repeat_rule(self) -> None:
        self.subscriber_repeats = self._counter(
            "subscriber_repeats", "Repeated events that the repeat rule skipped", "stage", "topic"
        )
        self.subscriber_passed_over = self._counter(
            "subscriber_passed_over", "Events skipped because their type has no handler", "stage", "topic"
        )
        self.subscriber_window_cuts = self._counter(
            "subscriber_window_cuts",
            "Event ids forgotten early because the window was full; a later repeat of these events is handled again",
            "stage",
            "topic",
        )
        self.subscriber_window_ids = self._gauge(
            "subscriber_window_ids", "Event ids remembered for a partition", "stage", "topic", "partition"
        )
        self.subscriber_window_seconds = self._histogram(
            "subscriber_window_seconds",
            "Seconds to read a partition's window of event ids again before its first record is handled",
            "stage",
            buckets=_SLOW,
        )


class Metrics(KafkaMetrics):
    """All metrics of a process of the pipeline.

    Args:
        version: The distribution's version, shown in ``pipeline_build_info``.
        registry: Default: a new one.
    """

    def __init__(self, *, version: str = "0", registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry=registry)
        self._ingress()
        self._jobs()
        self._edges()
        self._audit()
        self._process(version)

    def _ingress(self) -> None:
        self.ingress_requests = self._counter(
            "ingress_requests",
            "Webhook requests by answer and reason; integration is 'unknown' if the path belongs to no integration",
            "integration",
            "status",
            "reason",
        )
        self.ingress_request_seconds = self._histogram(
            "ingress_request_seconds", "Seconds from the first byte of a webhook's body to the answer", "integration"
        )
        self.ingress_alarms = self._counter(
            "ingress_alarms",
            "Requests that an operator must look at before events are lost, by kind (unverified, no_active_secret, "
            "unsigned_path, unknown_path, quarantined, too_large, source_overloaded)",
            "integration",
            "kind",
        )
        self.ingress_connections = self._gauge("ingress_connections", "Open connections from webhook senders")
        self.ingress_connections_closed = self._counter(
            "ingress_connections_closed",
            "Idle connections closed because ingress.max_connections was reached",
        )
        self.ingress_processes = self._gauge(
            "ingress_processes",
            "Processes of `pipeline ingress --processes N` by state (ready, not_ready)",
            "state",
        )
        self.ingress_process_ends = self._counter(
            "ingress_process_ends",
            "Processes of `pipeline ingress --processes N` that ended unexpectedly and were replaced",
        )
        self.ingress_in_flight = self._gauge("ingress_in_flight", "Webhook requests being handled now", "integration")
        self.ingress_bytes_in_flight = self._gauge(
            "ingress_bytes_in_flight", "Bytes of the bodies of webhook requests being handled now", "integration"
        )

    def _jobs(self) -> None:
        self.jobs = self._counter(
            "jobs",
            "Jobs decided by a stage, by outcome (done, or the error code of a failure)",
            "integration",
            "stage",
            "outcome",
        )
        self.announcement_conflicts = self._counter(
            "announcement_conflicts",
            "Announcements ignored because they contradict the first one of their job (merchant, record count)",
            "integration",
        )
        self.chunks = self._counter(
            "chunks",
            "Chunks by result (done, found: finished before a restart, shared: published for any worker, republished: "
            "published again)",
            "integration",
            "result",
        )
        self.chunk_seconds = self._histogram(
            "chunk_seconds", "Seconds that the processor took for one chunk", "integration", buckets=_SLOW
        )
        self.cards = self._counter("cards", "Cards decided by status (ok, failed)", "integration", "status")
        self.deadline_seconds_left = self._histogram(
            "deadline_seconds_left",
            "Seconds left before the deadline when a job's outcome was decided",
            "integration",
            buckets=_LEFT,
        )
        self.deadline_seconds_left_min = self._gauge(
            "deadline_seconds_left_min",
            "Seconds until the nearest deadline of an undecided job; negative once it has passed; NaN if there is no "
            "such job or no deadline watch runs here. Only jobs of configured integrations count",
        )
        self.deadline_seconds_left_min.set(float("nan"))  # 0 would raise an alarm in every other process
        self.deadline_watch_failing = self._gauge(
            "deadline_watch_failing",
            "Due jobs that the deadline watch could not handle in its last round; at least 1 if the round failed. If "
            "not 0, nobody fails these jobs at their deadline, and the metrics of deadlines may be out of date",
        )
        self.jobs_parked = self._counter(
            "jobs_parked",
            "Jobs parked by a stage, by error code: they wait in the job store for their next try; integration is "
            "'unknown' if it is not in the settings",
            "integration",
            "stage",
            "code",
        )
        self.jobs_waiting = self._gauge(
            "jobs_waiting",
            "Parked jobs by the error code that parked them; integration is 'unknown' if it is not in the settings. "
            "Only the process with the deadline watch shows it",
            "integration",
            "code",
        )
        self.integration_paused = self._gauge(
            "integration_paused", "1 while an operator has paused the integration and its jobs wait", "integration"
        )
        self.parked_overdue_seconds = self._gauge(
            "parked_overdue_seconds",
            "How many seconds the earliest parked job of a configured integration is overdue: it is due, but not yet "
            "published to its topic. 0 if none is overdue",
        )
        self.open_jobs = self._gauge("open_jobs", "Jobs with a deadline whose partner is not notified yet")
        self.open_jobs_unconfigured = self._gauge(
            "open_jobs_unconfigured",
            "Open jobs of integrations that are not in the settings of this process: nobody works on them",
            "integration",
        )

    def _edges(self) -> None:
        self.topic_differences = self._gauge(
            "topic_differences",
            "1 for each way in which a topic of this process breaks a promise (rule: missing, partitions, replication, "
            "or a topic setting); `pipeline topics check` says what to do",
            "topic",
            "rule",
        )
        self.transfer_bytes = self._counter(
            "transfer_bytes", "Bytes of input and result files on the wire by direction (download, upload)", "direction"
        )
        self.transfer_retries = self._counter(
            "transfer_retries", "Repeated downloads and uploads by direction and error code", "direction", "code"
        )
        self.circuit_open = self._gauge(
            "circuit_open",
            "Hosts of an integration whose last calls failed, by purpose (input, result, callback, cards): their jobs "
            "wait, except for one probe every 30 s",
            "integration",
            "purpose",
        )
        self.card_rate_level = self._gauge(
            "card_rate_level",
            "Share of its full rate at which this worker sends cards to the card service; below 1 after the service "
            "has asked for fewer requests",
            "integration",
        )
        self.callback_answers = self._counter(
            "callback_answers",
            "Callbacks by result (accepted, refused, retry) and reason code",
            "integration",
            "result",
            "code",
        )
        self.callback_seconds = self._histogram(
            "callback_seconds", "Seconds that one callback request took", "integration"
        )
        self.token_usable = self._gauge(
            "token_usable", "1 if the callback token is usable, as far as is known; 0 if not", "integration"
        )
        self.token_seconds_left = self._gauge(
            "token_seconds_left", "Seconds until the callback token expires, NaN if unknown", "integration"
        )
        self.store_op_seconds = self._histogram(
            "store_op_seconds",
            "Seconds that one call of the job store took, by operation and result (ok, failed)",
            "op",
            "result",
        )

    def _audit(self) -> None:
        self.audit_events = self._counter("audit_events", "Audit events by result (appended, repeated)", "result")
        self.audit_segments = self._counter("audit_segments", "Segments written to the audit log")
        self.audit_window_cuts = self._counter(
            "audit_window_cuts",
            "Event ids forgotten because the window of known ids was full; a later repeat of these events shows twice",
        )

    def _process(self, version: str) -> None:
        self.clock_offset_seconds = self._gauge(
            "clock_offset_seconds",
            "Seconds by which this machine's clock is ahead of a witness: kafka (append times), or the partner of an "
            "integration (Date headers of its answers to callbacks)",
            "witness",
        )
        ProcessCollector(registry=self.registry)
        self.loop_lag_seconds = self._histogram(
            "loop_lag_seconds", "Seconds by which the event loop woke a sleeping task too late"
        )
        self.build_info = self._gauge("build_info", "Always 1; the label names the running version", "version")
        self.build_info.labels(version=version).set(1)
