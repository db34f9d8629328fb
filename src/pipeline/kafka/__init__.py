"""Kafka: publishing, consumer groups, dead letters, topics. The only room that imports a Kafka client."""

from pipeline.kafka._group import AioGroup, Group, GroupFactory
from pipeline.kafka.batch_consumer import BatchConsumer
from pipeline.kafka.consumer import Consumer
from pipeline.kafka.dead_letters import DeadLetter, DeadLetters, OnDeadLetter
from pipeline.kafka.errors import BrokerUnavailable, EmbeddedMissing, RecordsLost, RecordTooLarge
from pipeline.kafka.event_consumer import EventConsumer
from pipeline.kafka.names import Names
from pipeline.kafka.protocols import BatchHandler, Gate, GateFactory, Handle, Handler, Lease, Publisher, Runner
from pipeline.kafka.publisher import KafkaPublisher
from pipeline.kafka.reader import Bounds, missing_topics, read_back, read_topic, topic_bounds
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings, SaslSettings, TlsSettings

__all__ = [
    "AioGroup",
    "BatchConsumer",
    "BatchHandler",
    "Bounds",
    "BrokerUnavailable",
    "Consumer",
    "ConsumerSettings",
    "DeadLetter",
    "DeadLetters",
    "EmbeddedMissing",
    "EventConsumer",
    "Gate",
    "GateFactory",
    "Group",
    "GroupFactory",
    "Handle",
    "Handler",
    "KafkaPublisher",
    "KafkaSettings",
    "Lease",
    "Names",
    "OnDeadLetter",
    "Publisher",
    "RecordTooLarge",
    "RecordsLost",
    "Runner",
    "SaslSettings",
    "TlsSettings",
    "missing_topics",
    "read_back",
    "read_topic",
    "topic_bounds",
]
