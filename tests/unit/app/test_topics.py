"""The topics of a process are looked at when it starts, and later on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from pipeline.app.running import STAGES
from pipeline.app.topics import TopicWatch, topics_of
from pipeline.contracts import TOPICS, TopicSpec
from pipeline.errors import FatalError
from pipeline.kafka import BrokerUnavailable, KafkaSettings, NotAuthorized
from pipeline.kafka.admin import TopicFinding
from pipeline.observability import Health, Metrics
from pipeline.settings import Settings

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")
MISSING = TopicFinding("card-batch.requested", "missing", "the topic", "nothing", breaks=True)
FEW = TopicFinding("audit.events", "partitions", "6", "4", breaks=True)
MORE = TopicFinding("card-batch.failed", "partitions", "12", "24", breaks=False)


class Cluster:
    """Answers with what the test says."""

    def __init__(self, *findings: TopicFinding) -> None:
        self.findings = findings
        self.error: Exception | None = None
        self.unreadable = False
        self.looks: list[bool] = []

    async def check(
        self, _kafka: KafkaSettings, _specs: Sequence[TopicSpec], *, configs: bool = True
    ) -> Sequence[TopicFinding]:
        self.looks.append(configs)
        if self.error:
            raise self.error
        if configs and self.unreadable:
            raise NotAuthorized("Describing the settings of audit.events")
        return self.findings


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.app.topics._LOOK_AGAIN", 0.001)
    monkeypatch.setattr("pipeline.app.topics._LOOK_OFTEN", 0.001)


@asynccontextmanager
async def watching(cluster: Cluster, metrics: Metrics | None = None) -> AsyncIterator[TopicWatch]:
    watch = TopicWatch(KAFKA, TOPICS, metrics or Metrics(), check=cluster.check)
    task = asyncio.create_task(watch.serve())
    await looked(cluster)
    yield watch
    await watch.stop()
    await asyncio.wait_for(task, 5)


async def looked(cluster: Cluster) -> None:
    """Wait until the cluster was looked at twice more, so that the first answer has been used."""
    before = len(cluster.looks)
    async with asyncio.timeout(5):
        while len(cluster.looks) < before + 2:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)


def health(watch: TopicWatch) -> Health:
    assert watch.alive().ok
    assert watch.started is watch.checks["topics"]().ok
    return watch.checks["topics"]()


async def test_until_all_topics_exist_the_process_is_not_ready() -> None:
    cluster = Cluster(MISSING)
    async with watching(cluster) as watch:
        assert health(watch) == Health(
            ok=False,
            message="kafka_topic_missing: card-batch.requested: run pipeline topics create, or grant Describe",
        )
        cluster.findings = ()
        await looked(cluster)
        assert health(watch) == Health(ok=True, message="all as they should be")


async def test_a_topic_that_differs_is_an_alarm_and_no_unreadiness() -> None:
    """It is logged once with its remedy, and counted as long as it differs.

    A topic with more than planned is no alarm.
    """
    cluster, metrics = Cluster(FEW, MORE), Metrics()

    def gauge() -> float | None:
        labels = {"topic": "audit.events", "rule": "partitions"}
        return metrics.registry.get_sample_value("pipeline_topic_differences", labels)

    with capture_logs() as lines:
        async with watching(cluster, metrics) as watch:
            assert health(watch) == Health(
                ok=True, message="differing from the table, see pipeline topics check: audit.events"
            )
            assert gauge() == 1
            await looked(cluster)
            cluster.findings = ()
            await looked(cluster)
            assert gauge() is None
    assert [(line["log_level"], line["event"], line["topic"], line["rule"]) for line in lines] == [
        ("error", "topic_differs", "audit.events", "partitions")
    ]
    assert lines[0]["remedy"] == FEW.remedy


async def test_a_topic_that_is_deleted_later_does_not_take_the_others_along() -> None:
    cluster = Cluster()
    async with watching(cluster) as watch:
        assert health(watch).ok
        cluster.findings = (MISSING,)
        await looked(cluster)
        assert health(watch) == Health(
            ok=True, message="differing from the table, see pipeline topics check: card-batch.requested"
        )


async def test_without_the_right_to_describe_settings_the_rest_is_checked() -> None:
    cluster = Cluster(MISSING)
    cluster.unreadable = True
    with capture_logs() as lines:
        async with watching(cluster) as watch:
            assert "card-batch.requested" in health(watch).message
    assert {line["event"] for line in lines} == {"topic_settings_unchecked", "topic_differs"}


async def test_nobody_answers() -> None:
    cluster = Cluster()
    cluster.error = BrokerUnavailable("kafka_tls_untrusted", "127.0.0.1:1: wrong CA")
    async with watching(cluster) as watch:
        assert health(watch) == Health(ok=False, message="kafka_tls_untrusted: 127.0.0.1:1: wrong CA")
        cluster.error = None
        await looked(cluster)
        assert health(watch).ok
        cluster.error = BrokerUnavailable("broker_unavailable", "gone")
        await looked(cluster)
        assert health(watch).ok, "the check named kafka says so"


async def test_a_broker_that_cannot_describe_topics_is_left_alone() -> None:
    cluster = Cluster()
    cluster.error = FatalError("admin_unsupported", "This broker cannot create or describe topics.")
    async with watching(cluster) as watch:
        assert health(watch).ok


def test_each_process_looks_at_the_topics_that_its_kafka_user_may_describe() -> None:
    """docs/explanation/security.md lists these topics."""
    settings = Settings()
    found = {name: {str(spec.topic) for spec in topics_of(name, settings)} for name in ("ingress", *STAGES)}
    assert found["process"] == {
        "card-batch.requested",
        "card-batch.chunks",
        "card-batch.processed",
        "card-batch.failed",
        "card-batch.dead-letter",
        "audit.events",
    }
    assert found["upload"] == (found["process"] | {"card-batch.uploaded"}) - {
        "card-batch.requested",
        "card-batch.chunks",
    }
    assert found["confirm"] == found["process"] | {"card-batch.uploaded", "card-batch.completed"}
    assert {"audit.events", "audit.dead-letter"} <= found["audit"]
    assert {name for name in found["ingress"] if name.startswith(("card-batch.", "audit."))} == {
        "card-batch.requested",
        "card-batch.quarantine",
        "audit.events",
    }
    assert {name for name in found["ingress"] if name.startswith("card-events.")} == {
        str(spec.topic) for spec in TOPICS if spec.topic.startswith("card-events.")
    }
