"""A typed, safe consumer for teams that subscribe to topics of events. Public API."""

from pipeline.kafka import KafkaSettings, SaslSettings, TlsSettings
from pipeline.subscriber.errors import Poison, Retry
from pipeline.subscriber.event import Event
from pipeline.subscriber.settings import SubscriberRetry, SubscriberSettings
from pipeline.subscriber.subscriber import Subscriber
from pipeline.subscriber.topics import dead_letter_topics

__all__ = [
    "Event",
    "KafkaSettings",
    "Poison",
    "Retry",
    "SaslSettings",
    "Subscriber",
    "SubscriberRetry",
    "SubscriberSettings",
    "TlsSettings",
    "dead_letter_topics",
]
