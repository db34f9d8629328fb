"""Creating and checking topics, from the one table of topics: for a person with rights, no component needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import JsonValue

from pipeline.contracts import TOPICS, TopicSpec, segment_ms
from pipeline.errors import FatalError
from pipeline.kafka._connection import connection_options
from pipeline.kafka._producer import DEAD_LETTER_ROOM
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.names import Names
from pipeline.kafka.settings import KafkaSettings

_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks whether created topics are there."""
_SAFE_REPLICAS: Final = 3
"""From so many replicas on, one may be missing without stopping publications."""


@dataclass(frozen=True, slots=True)
class TopicResult:
    """What ``create_topics`` did about one topic."""

    name: str
    created: bool


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """One way in which the cluster differs from the table.

    Attributes:
        rule: ``missing``, ``partitions``, ``replication``, or the name of a topic configuration.
        breaks: Whether a promise breaks (else it is only otherwise than planned, e.g. more partitions).
    """

    name: str
    rule: str
    expected: str
    found: str
    breaks: bool


def topic_table(settings: KafkaSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[dict[str, JsonValue]]:
    """Return the topics as they should be, for other tools that create them (Terraform, Strimzi)."""
    names = Names(settings)
    return [
        {
            "name": names.topic(spec.topic),
            "logical": str(spec.topic),
            "partitions": spec.partitions,
            "replication_factor": settings.replication_factor,
            "configs": dict(_configs(spec, settings)),
            "sensitive": spec.sensitive,
            "about": spec.about,
        }
        for spec in specs
    ]


async def create_topics(settings: KafkaSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[TopicResult]:
    """Create the topics that are missing; leave the others as they are. Repeating is safe.

    Raises:
        BrokerUnavailable: Not done in time.
        FatalError: The cluster refuses, with its reason.
    """
    names = Names(settings)
    async with _admin(settings) as client:
        there = {topic["topic"] for topic in await client.describe_topics()}
        missing = [spec for spec in specs if names.topic(spec.topic) not in there]
        if missing:
            await _create(client, [_new(spec, names, settings) for spec in missing])
    return [TopicResult(names.topic(spec.topic), created=spec in missing) for spec in specs]


async def check_topics(settings: KafkaSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[TopicFinding]:
    """Return how the topics of the cluster differ from the table. Raises as :func:`create_topics`."""
    names = Names(settings)
    async with _admin(settings) as client:
        there = {topic["topic"]: topic["partitions"] for topic in await client.describe_topics()}
        configs = await _described(client, [name for spec in specs if (name := names.topic(spec.topic)) in there])
    findings: list[TopicFinding] = []
    for spec in specs:
        name = names.topic(spec.topic)
        if name in there:
            findings += _shape(name, spec, settings, there[name])
            findings += _differences(name, spec, settings, configs[name])
        else:
            findings.append(TopicFinding(name, "missing", "the topic", "nothing", breaks=True))
    return findings


def _shape(
    name: str, spec: TopicSpec, settings: KafkaSettings, partitions: Sequence[Mapping[str, Any]]
) -> list[TopicFinding]:
    found = []
    if len(partitions) != spec.partitions:
        fewer = len(partitions) < spec.partitions
        found.append(TopicFinding(name, "partitions", str(spec.partitions), str(len(partitions)), breaks=fewer))
    replicas = min((len(partition["replicas"]) for partition in partitions), default=0)
    if replicas != settings.replication_factor:
        fewer = replicas < settings.replication_factor
        found.append(TopicFinding(name, "replication", str(settings.replication_factor), str(replicas), breaks=fewer))
    return found


def _differences(name: str, spec: TopicSpec, settings: KafkaSettings, found: Mapping[str, str]) -> list[TopicFinding]:
    differences = []
    for rule, expected in _configs(spec, settings).items():
        value = found.get(rule, "")
        if value != expected:
            breaks = value != "-1" if rule == "retention.ms" else True
            if rule in ("max.message.bytes", "min.insync.replicas", "retention.ms") and value.isdecimal():
                breaks = int(value) < int(expected)
            differences.append(TopicFinding(name, rule, expected, value, breaks=breaks))
    return differences


def _configs(spec: TopicSpec, settings: KafkaSettings) -> dict[str, str]:
    segment = segment_ms(spec)
    return {
        **({"segment.ms": str(segment)} if segment else {}),
        "cleanup.policy": "delete",
        "retention.ms": str(spec.retention_ms),
        "min.insync.replicas": "2" if settings.replication_factor >= _SAFE_REPLICAS else "1",
        "max.message.bytes": str(settings.max_record_bytes + DEAD_LETTER_ROOM),
        # the broker unpacks what others compress: our client cannot read every codec, and one batch that it cannot
        # read would stop its partition for good; nor can a small batch be a large one for our memory
        "compression.type": "uncompressed",
    }


def _new(spec: TopicSpec, names: Names, settings: KafkaSettings) -> Any:
    return NewTopic(
        name=names.topic(spec.topic),
        num_partitions=spec.partitions,
        replication_factor=settings.replication_factor,
        topic_configs=_configs(spec, settings),
    )


async def _create(client: Any, topics: Sequence[Any]) -> None:
    """Create topics and wait until a broker shows them: other components may be started right after."""
    cluster = await client.describe_cluster()
    if cluster["controller_id"] not in {broker["node_id"] for broker in cluster["brokers"]}:
        raise FatalError("admin_unsupported", "This cluster names no controller: topics cannot be created here.")
    answer = await client.create_topics(topics)
    _raise_refusal(answer.topic_errors)
    names = {topic.name for topic in topics}
    while not names <= {  # noqa: ASYNC110 - only the cluster knows when
        topic["topic"] for topic in await client.describe_topics() if topic["partitions"]
    }:
        await asyncio.sleep(_LOOK_AGAIN)


def _raise_refusal(errors: Sequence[Any]) -> None:
    for name, code, *message in errors:
        if code not in (0, kafka.TopicAlreadyExistsError.errno):
            why = (message and message[0]) or kafka.for_code(code).__name__
            raise FatalError("topic_refused", f"The cluster does not create {name}: {why}")


async def _described(client: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        for code, message, _kind, name, entries in answer.resources:
            if code:
                why = message or kafka.for_code(code).__name__
                raise FatalError("topic_refused", f"The cluster does not describe {name}: {why}")
            found[name] = {entry[0]: entry[1] or "" for entry in entries}
    return found


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncIterator[Any]:
    options = await asyncio.to_thread(connection_options, settings, client_id="card-pipeline-admin")
    client = AIOKafkaAdminClient(**options)
    try:
        async with asyncio.timeout(4 * settings.request_timeout_seconds):
            await client.start()
            yield client
    except (kafka.IncompatibleBrokerVersion, kafka.UnsupportedVersionError) as error:
        raise FatalError("admin_unsupported", "This broker cannot create or describe topics.") from error
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable("broker_unavailable", f"No answer about topics: {type(error).__name__}.") from error
    finally:
        await client.close()
