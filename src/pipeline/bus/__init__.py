"""Kafka: publishing, consumer groups, dead letters, topics. The only room that imports a Kafka client."""

from pipeline.bus._group import GroupFactory
from pipeline.bus.admin import TopicFinding, TopicResult, check_topics, create_topics, topic_table
from pipeline.bus.batch_consumer import BatchConsumer
from pipeline.bus.consumer import Consumer
from pipeline.bus.dead_letters import DeadLetter, DeadLetters, OnDeadLetter
from pipeline.bus.embedded import EmbeddedBroker
from pipeline.bus.errors import BrokerUnavailable, EmbeddedMissing, RecordsLost, RecordTooLarge
from pipeline.bus.event_consumer import EventConsumer
from pipeline.bus.names import Names
from pipeline.bus.protocols import (
    BatchHandler,
    Gate,
    GateFactory,
    Handle,
    Handler,
    Lease,
    Outgoing,
    Publisher,
    Record,
    RecordPlace,
    Runner,
)
from pipeline.bus.publisher import KafkaPublisher
from pipeline.bus.reader import Bounds, missing_topics, read_back, read_topic, topic_bounds
from pipeline.bus.settings import ConsumerSettings, KafkaSettings, SaslSettings, TlsSettings

__all__ = [
    "BatchConsumer",
    "BatchHandler",
    "Bounds",
    "BrokerUnavailable",
    "Consumer",
    "ConsumerSettings",
    "DeadLetter",
    "DeadLetters",
    "EmbeddedBroker",
    "EmbeddedMissing",
    "EventConsumer",
    "Gate",
    "GateFactory",
    "GroupFactory",
    "Handle",
    "Handler",
    "KafkaPublisher",
    "KafkaSettings",
    "Lease",
    "Names",
    "OnDeadLetter",
    "Outgoing",
    "Publisher",
    "Record",
    "RecordPlace",
    "RecordTooLarge",
    "RecordsLost",
    "Runner",
    "SaslSettings",
    "TlsSettings",
    "TopicFinding",
    "TopicResult",
    "check_topics",
    "create_topics",
    "missing_topics",
    "read_back",
    "read_topic",
    "topic_bounds",
    "topic_table",
]
