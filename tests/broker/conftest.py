"""Settings for tests on real brokers: topics and groups of each test are its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.brokers import Broker
from support.members import fresh_settings

from pipeline.kafka import ConsumerSettings, KafkaPublisher, KafkaSettings


@pytest.fixture(autouse=True)
async def _transports_closed() -> AsyncIterator[None]:
    """Give the transports that a test has closed the turn of the loop that they need for it."""
    yield
    for _ in range(2):
        await asyncio.sleep(0)


@pytest.fixture(params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the two brokers in turn."""
    fixture = "embedded_broker" if request.param == "embedded" else "apache_kafka"
    found: Broker = request.getfixturevalue(fixture)
    return found


@pytest.fixture
async def kafka(broker: Broker) -> KafkaSettings:
    """Settings with topics and groups that no other test has."""
    return await fresh_settings(broker)


@pytest.fixture
def quick() -> ConsumerSettings:
    """A consumer that reacts at once."""
    return ConsumerSettings(
        session_timeout_seconds=6.0,
        retry={"first_seconds": 0.05, "max_seconds": 0.2},
        commit_interval_seconds=0.1,
        poll_interval_seconds=0.1,
        stop_grace_seconds=2.0,
        batch_linger_seconds=0.05,
    )


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[KafkaPublisher]:
    async with KafkaPublisher(kafka) as made:
        yield made
