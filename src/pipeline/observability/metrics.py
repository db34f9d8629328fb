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
"""For an ingress of several processes: gauges whose sum makes no sense. Each shows the value of one process."""


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
            "publish_seconds", "From handing a record over to the acknowledgement of every in-sync replica", "topic"
        )
        self.kafka_connected = self._gauge(
            "kafka_connected", "1 if a broker answered the publisher within the last seconds; 0 if not"
        )
        self.kafka_connected.set(float("nan"))  # 0 would raise an alarm in a process without a publisher
        self.publish_failures = self._counter(
            "publish_failures", "Publications that ended without an acknowledgement, by error code", "topic", "code"
        )
        self.sends_in_flight = self._gauge("sends_in_flight", "Records handed over and not yet acknowledged")

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
            "consumer_handle_seconds", "Time of one call of a handler", "stage", buckets=_SLOW
        )
        self.consumer_retries = self._counter(
            "consumer_retries", "Records that will be handled again, by error code", "stage", "code"
        )
        self.consumer_dead_letters = self._counter(
            "consumer_dead_letters", "Records put into a dead-letter topic, by error code", "stage", "topic", "code"
        )
        self.consumer_commits = self._counter(
            "consumer_commits", "Commits of offsets by result (ok, failed)", "stage", "result"
        )
        self.consumer_rebalances = self._counter(
            "consumer_rebalances", "Assignments of partitions that this member was given", "stage"
        )
        self.consumer_left_uncommitted = self._counter(
            "consumer_left_uncommitted",
            "Offsets begun and not committed when a partition was lost: their records may be handled again",
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
            "subscriber_repeats", "Repeats of events, not handled again (the repeat rule)", "stage", "topic"
        )
        self.subscriber_passed_over = self._counter(
            "subscriber_passed_over", "Events of a type that has no handler", "stage", "topic"
        )
        self.subscriber_window_cuts = self._counter(
            "subscriber_window_cuts",
            "Event ids forgotten by number before their time was over: a later repeat is handled again",
            "stage",
            "topic",
        )
        self.subscriber_window_ids = self._gauge(
            "subscriber_window_ids", "Event ids remembered of a partition", "stage", "topic", "partition"
        )
        self.subscriber_window_seconds = self._histogram(
            "subscriber_window_seconds",
            "Time to read again what a partition's window needs, before its first record is handled",
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
            "Webhook requests by what they were answered and why; integration is 'unknown' where the path names none",
            "integration",
            "status",
            "reason",
        )
        self.ingress_request_seconds = self._histogram(
            "ingress_request_seconds", "From the first byte of a webhook's body to the answer", "integration"
        )
        self.ingress_alarms = self._counter(
            "ingress_alarms",
            "What somebody must look at before events are lost: unverified, no_active_secret, unsigned_path, "
            "unknown_path, quarantined, too_large, source_overloaded",
            "integration",
            "kind",
        )
        self.ingress_connections = self._gauge("ingress_connections", "Open connections of senders of webhooks")
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
            "Processes of `pipeline ingress --processes N` that ended without being asked to, and were replaced",
        )
        self.ingress_in_flight = self._gauge("ingress_in_flight", "Webhook requests in work", "integration")
        self.ingress_bytes_in_flight = self._gauge(
            "ingress_bytes_in_flight", "Bytes of bodies of the webhook requests in work", "integration"
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
            "Announcements that contradict the first one of their job (merchant, record count) and are not used",
            "integration",
        )
        self.chunks = self._counter(
            "chunks",
            "Chunks by result (done, found: finished before a restart, shared: handed out to all workers, republished: "
            "handed out once more)",
            "integration",
            "result",
        )
        self.chunk_seconds = self._histogram(
            "chunk_seconds", "Time of the processor for one chunk", "integration", buckets=_SLOW
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
            "Seconds before the nearest deadline of a job that nobody has decided, negative when passed; NaN when "
            "there is none, and where no deadline watch runs. Only jobs of configured integrations count",
        )
        self.deadline_seconds_left_min.set(float("nan"))  # 0 would raise an alarm in every other process
        self.deadline_watch_failing = self._gauge(
            "deadline_watch_failing",
            "Due jobs that the deadline watch could not handle in its last look; at least 1 if it could not look: "
            "nobody fails them at their deadline, and what is known of deadlines may be as of an earlier look",
        )
        self.jobs_parked = self._counter(
            "jobs_parked",
            "Jobs parked by a stage, by error code: they wait in the job store for their next try; integration is "
            "'unknown' where the settings lack it",
            "integration",
            "stage",
            "code",
        )
        self.jobs_waiting = self._gauge(
            "jobs_waiting",
            "Parked jobs by the error code they wait because of; integration is 'unknown' where the settings lack it. "
            "Only where a deadline watch runs",
            "integration",
            "code",
        )
        self.integration_paused = self._gauge(
            "integration_paused", "1 while an operator has paused the integration: its jobs wait untried", "integration"
        )
        self.parked_overdue_seconds = self._gauge(
            "parked_overdue_seconds",
            "Seconds since the earliest parked job of a configured integration was due and was not published to its "
            "topic; 0 when none is late",
        )
        self.open_jobs = self._gauge("open_jobs", "Jobs under a deadline whose partner is not notified yet")
        self.open_jobs_unconfigured = self._gauge(
            "open_jobs_unconfigured",
            "Open jobs of integrations that this process does not have in its settings: nobody works on them",
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
            "Hosts of an integration that failed at the last calls, by purpose (input, result, callback, cards): jobs "
            "wait untried, but for a probe every 30 s",
            "integration",
            "purpose",
        )
        self.card_rate_level = self._gauge(
            "card_rate_level",
            "Share of its rate at which this worker sends cards to the card service; below 1 after the service asked "
            "for fewer",
            "integration",
        )
        self.callback_answers = self._counter(
            "callback_answers",
            "Callbacks by result (accepted, refused, retry) and reason code",
            "integration",
            "result",
            "code",
        )
        self.callback_seconds = self._histogram("callback_seconds", "Time of one callback request", "integration")
        self.token_usable = self._gauge(
            "token_usable", "1 if callbacks can be authenticated, as far as is known; 0 if not", "integration"
        )
        self.token_seconds_left = self._gauge(
            "token_seconds_left", "Seconds before the callback token expires, NaN when unknown", "integration"
        )
        self.store_op_seconds = self._histogram(
            "store_op_seconds", "Time of one call of the job store by operation and result (ok, failed)", "op", "result"
        )

    def _audit(self) -> None:
        self.audit_events = self._counter("audit_events", "Audit events by result (appended, repeated)", "result")
        self.audit_segments = self._counter("audit_segments", "Segments written to the audit log")
        self.audit_window_cuts = self._counter(
            "audit_window_cuts",
            "Event ids forgotten because the window of known ids was full; a later repeat shows twice",
        )

    def _process(self, version: str) -> None:
        self.clock_offset_seconds = self._gauge(
            "clock_offset_seconds",
            "By how much this machine's clock is ahead of a witness: kafka (append times), or the partner of an "
            "integration (Date headers of its answers to callbacks)",
            "witness",
        )
        ProcessCollector(registry=self.registry)
        self.loop_lag_seconds = self._histogram(
            "loop_lag_seconds", "By how much the event loop woke a sleeper too late"
        )
        self.build_info = self._gauge("build_info", "Always 1; the label says what runs", "version")
        self.build_info.labels(version=version).set(1)
