"""Fixtures that tests of several packages share, and how Hypothesis tries."""

from hypothesis import HealthCheck, settings
from support.brokers import apache_kafka, embedded_broker
from support.seaweedfs import seaweedfs
from support.secured_kafka import secured_kafka
from support.versitygw import versitygw

__all__ = ["apache_kafka", "embedded_broker", "seaweedfs", "secured_kafka", "versitygw"]

# A busy machine is no failure, and the same commit passes or fails each time. To look for new examples:
# pytest --hypothesis-profile=explore
settings.register_profile("gate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("gate")
