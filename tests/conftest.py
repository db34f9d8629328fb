"""Fixtures that tests of several rooms share."""

from support.brokers import apache_kafka, embedded_broker
from support.seaweedfs import seaweedfs

__all__ = ["apache_kafka", "embedded_broker", "seaweedfs"]
