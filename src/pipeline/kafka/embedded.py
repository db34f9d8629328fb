"""The embedded broker: librdkafka's built-in cluster, for the demo, development and tests.

It keeps all records in memory. It supports one member per group and no admin calls. A topic gets 4 partitions on first
use. Each partition keeps 5 MB and then drops its oldest records, so an acknowledged record may be lost.

``python -m pipeline.kafka.embedded_process`` runs it as a process of its own.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

from pipeline.errors import FatalError
from pipeline.kafka.errors import EmbeddedMissing

_UP_WITHIN: Final = 10.0


class EmbeddedBroker:
    """A broker on a free port of 127.0.0.1 until the end of the block.

    Attributes:
        bootstrap_servers: Its address.
    """

    def __init__(self) -> None:
        self._cluster: Any = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        """Start the broker, which takes some milliseconds.

        Raises:
            EmbeddedMissing: The extra is not installed.
            FatalError: The broker does not start.
        """
        try:
            import confluent_kafka  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise EmbeddedMissing from error
        # the cluster lives as long as this client; log_level 3 keeps its greeting off stderr
        self._cluster = confluent_kafka.Producer(
            {"bootstrap.servers": "ignored", "test.mock.num.brokers": 1, "log_level": 3}
        )
        try:
            brokers = self._cluster.list_topics(timeout=_UP_WITHIN).brokers.values()
        except confluent_kafka.KafkaException as error:
            raise FatalError("embedded_broker_down", "the embedded broker did not start") from error
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and forget all records."""
        self._cluster = None
