"""Kafka: publishing, consumer groups, dead letters, topics. No other package imports a Kafka client."""

from pipeline.kafka.batch import BatchConsumer
from pipeline.kafka.client.gathering import partition_of_key
from pipeline.kafka.client.group import KafkaGroupClient
from pipeline.kafka.dead_letters import DeadLetter, DeadLetters, OnDeadLetter, StoredDeadLetter, read_dead_letter
from pipeline.kafka.errors import (
    BatchUndecodable,
    BrokerUnavailable,
    EmbeddedMissing,
    GroupBusy,
    GroupUnknown,
    NotAuthorized,
    RecordsLost,
    RecordTooLarge,
    SkipRefused,
    TopicMissing,
    TopicUnknown,
)
from pipeline.kafka.keyed import KeyedConsumer
from pipeline.kafka.producer import MAX_SENDS_IN_FLIGHT, KafkaPublisher
from pipeline.kafka.protocols import (
    BatchHandler,
    Bounds,
    Gate,
    GateFactory,
    GroupClient,
    GroupClientFactory,
    Handle,
    Lease,
    OnArrival,
    Partition,
    Point,
    Publisher,
    Runner,
)
from pipeline.kafka.reader import missing_topics, read_back, read_topic, tail, topic_bounds, topic_names
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings, Names, SaslSettings, TlsSettings, WorkerSettings

__all__ = [
    "MAX_SENDS_IN_FLIGHT",
    "BatchConsumer",
    "BatchHandler",
    "BatchUndecodable",
    "Bounds",
    "BrokerUnavailable",
    "ConsumerSettings",
    "DeadLetter",
    "DeadLetters",
    "EmbeddedMissing",
    "Gate",
    "GateFactory",
    "GroupBusy",
    "GroupClient",
    "GroupClientFactory",
    "GroupUnknown",
    "Handle",
    "KafkaGroupClient",
    "KafkaPublisher",
    "KafkaSettings",
    "KeyedConsumer",
    "Lease",
    "Names",
    "NotAuthorized",
    "OnArrival",
    "OnDeadLetter",
    "Partition",
    "Point",
    "Publisher",
    "RecordTooLarge",
    "RecordsLost",
    "Runner",
    "SaslSettings",
    "SkipRefused",
    "StoredDeadLetter",
    "TlsSettings",
    "TopicMissing",
    "TopicUnknown",
    "WorkerSettings",
    "missing_topics",
    "partition_of_key",
    "read_back",
    "read_dead_letter",
    "read_topic",
    "tail",
    "topic_bounds",
    "topic_names",
]
