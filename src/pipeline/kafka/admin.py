"""Creating and checking topics, from the one table of topics: for a person with rights, no component needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from pipeline.contracts import TOPICS, TopicSpec, segment_ms
from pipeline.kafka.client.admin import NewTopic, open_topics
from pipeline.kafka.client.producer import DEAD_LETTER_ROOM
from pipeline.kafka.settings import KafkaSettings, Names

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
    async with open_topics(settings) as cluster:
        there = await cluster.topics()
        missing = [spec for spec in specs if names.topic(spec.topic) not in there]
        if missing:
            await cluster.create_topics([_new(spec, names, settings) for spec in missing])
    return [TopicResult(names.topic(spec.topic), created=spec in missing) for spec in specs]


async def check_topics(settings: KafkaSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[TopicFinding]:
    """Return how the topics of the cluster differ from the table. Raises as :func:`create_topics`."""
    names = Names(settings)
    async with open_topics(settings) as cluster:
        there = await cluster.topics()
        configs = await cluster.configs([name for spec in specs if (name := names.topic(spec.topic)) in there])
    findings: list[TopicFinding] = []
    for spec in specs:
        name = names.topic(spec.topic)
        if name in there:
            findings += _shape(name, spec, settings, there[name])
            findings += _differences(name, spec, settings, configs[name])
        else:
            findings.append(TopicFinding(name, "missing", "the topic", "nothing", breaks=True))
    return findings


def _shape(name: str, spec: TopicSpec, settings: KafkaSettings, replicas_found: Sequence[int]) -> list[TopicFinding]:
    found = []
    partitions = len(replicas_found)
    if partitions != spec.partitions:
        fewer = partitions < spec.partitions
        found.append(TopicFinding(name, "partitions", str(spec.partitions), str(partitions), breaks=fewer))
    replicas = min(replicas_found, default=0)
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
        # the broker unpacks what producers compress: then a codec that a subscriber lacks stops nobody, and a small
        # batch never becomes a large one in a reader's memory
        "compression.type": "uncompressed",
    }


def _new(spec: TopicSpec, names: Names, settings: KafkaSettings) -> NewTopic:
    return NewTopic(names.topic(spec.topic), spec.partitions, settings.replication_factor, _configs(spec, settings))
