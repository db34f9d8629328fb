"""Logging, metrics, tracing and health checks, with masking of secrets and card data."""

from pipeline.observability.clock import CheckedClock, ClockWrong
from pipeline.observability.durations import Durations
from pipeline.observability.health import Check, Checks, Health, watch_loop_lag
from pipeline.observability.loggers import get_logger
from pipeline.observability.logging import configure_logging
from pipeline.observability.masking import DIGITS_MASK, FOREIGN_DIGITS, Redaction, drop_urls, is_secret_name, mask_text
from pipeline.observability.metrics import KafkaMetrics, Metrics, SubscriberMetrics
from pipeline.observability.settings import LoggingSettings, ManagementSettings
from pipeline.observability.tracing import (
    RandomHex,
    TraceContext,
    bound_trace,
    continue_trace,
    parse_traceparent,
    record_fields,
    trace_in_logs,
)

__all__ = [
    "DIGITS_MASK",
    "FOREIGN_DIGITS",
    "Check",
    "CheckedClock",
    "Checks",
    "ClockWrong",
    "Durations",
    "Health",
    "KafkaMetrics",
    "LoggingSettings",
    "ManagementSettings",
    "Metrics",
    "RandomHex",
    "Redaction",
    "SubscriberMetrics",
    "TraceContext",
    "bound_trace",
    "configure_logging",
    "continue_trace",
    "drop_urls",
    "get_logger",
    "is_secret_name",
    "mask_text",
    "parse_traceparent",
    "record_fields",
    "trace_in_logs",
    "watch_loop_lag",
]
