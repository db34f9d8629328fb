"""A log of one partition, and a handler that takes notes."""

import pytest
from support.fake_log import FakeLog
from support.subscriber_bench import Notes


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def notes() -> Notes:
    return Notes()
