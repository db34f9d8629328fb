"""Creates and checks topics by the table of topics. Only an operator needs the rights for this, no component does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from pipeline.contracts import TOPICS, TopicSpec, segment_ms
from pipeline.kafka.client.admin import NewTopic, TopicAdmin, open_topics
from pipeline.kafka.client.producer import DEAD_LETTER_ROOM
from pipeline.kafka.settings import KafkaSettings, Names

_SAFE_REPLICAS: Final = 3
"""With this many replicas, publications continue while one replica is missing."""


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """One way in which the cluster differs from the table.

    Attributes:
        rule: ``missing``, ``partitions``, ``replication``, or the name of a topic configuration.
        breaks: Whether it breaks a promise. Otherwise the topic only differs from the plan, e.g. has more partitions.
    """

    name: str
    rule: str
    expected: str
    found: str
    breaks: bool

    @property
    def remedy(self) -> str:
        """How to correct the topic."""
        match self.rule:
            case "missing":
                return "pipeline topics create"
            case "partitions" if self.breaks:
                return (
                    "if it has no record yet: delete it and run pipeline topics create. Otherwise, as keys move to "
                    "other partitions: stop the ingress, let the stages handle all records, stop them, and run "
                    f"kafka-topics.sh --alter --topic {self.name} --partitions {self.expected}"
                )
            case "partitions":
                return "none is needed"
            case "replication":
                return "kafka-reassign-partitions.sh, or correct kafka.replication_factor"
            case _:
                return (
                    f"kafka-configs.sh --alter --entity-type topics --entity-name {self.name} "
                    f"--add-config {self.rule}={self.expected}"
                )


@dataclass(frozen=True, slots=True)
class TopicResult:
    """The result of ``create_topics`` for one topic.

    Attributes:
        findings: How the topic differs from the table, if it existed before.
    """

    name: str
    created: bool
    findings: tuple[TopicFinding, ...] = ()


def topic_table(settings: KafkaSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[dict[str, JsonValue]]:
    """Return the planned topics, for other tools that create them (Terraform, Strimzi)."""
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
    """Create the missing topics. Do not change the others, but return how they differ. Safe to repeat.

    Raises:
        BrokerUnavailable: The cluster did not do it in time.
        FatalError: The cluster refuses, with its reason.
    """
    names = Names(settings)
    async with open_topics(settings) as cluster:
        there = await cluster.topics()
        missing = [spec for spec in specs if names.topic(spec.topic) not in there]
        if missing:
            await cluster.create_topics([_new(spec, names, settings) for spec in missing])
        # check the new ones too: a broker may have created one by itself at the same moment
        findings = await _findings(cluster, settings, specs)
    return [
        TopicResult(name, created=spec in missing, findings=tuple(one for one in findings if one.name == name))
        for spec in specs
        for name in [names.topic(spec.topic)]
    ]


async def check_topics(
    settings: KafkaSettings, specs: Sequence[TopicSpec] = TOPICS, *, configs: bool = True
) -> list[TopicFinding]:
    """Return how the topics of the cluster differ from the table.

    Args:
        settings: The cluster.
        specs: The table.
        configs: Whether to compare configurations too, which needs the right to describe them.

    Raises:
        NotAuthorized: The user may not describe the configurations.
        BrokerUnavailable: No answer in time.
        FatalError: This broker cannot describe topics.
    """
    async with open_topics(settings) as cluster:
        return await _findings(cluster, settings, specs, configs=configs)


async def _findings(
    cluster: TopicAdmin, settings: KafkaSettings, specs: Sequence[TopicSpec], *, configs: bool = True
) -> list[TopicFinding]:
    names = Names(settings)
    there = await cluster.topics()
    existing = [name for spec in specs if (name := names.topic(spec.topic)) in there]
    described = await cluster.configs(existing) if configs else {}
    findings: list[TopicFinding] = []
    for spec in specs:
        name = names.topic(spec.topic)
        if name in there:
            findings += _shape(name, spec, settings, there[name])
            if configs:
                findings += _differences(name, spec, settings, described[name])
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
            breaks = value != "-1" if rule == "retention.ms" else rule != "message.timestamp.type"
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
        # the broker decompresses the producers' batches. So a missing codec stops no subscriber, and a small batch
        # never grows in a reader's memory
        "compression.type": "uncompressed",
        # the broker's time shows a stage whether its own clock is right
        **({"message.timestamp.type": "LogAppendTime"} if spec.dead_letter is not None else {}),
    }


def _new(spec: TopicSpec, names: Names, settings: KafkaSettings) -> NewTopic:
    return NewTopic(names.topic(spec.topic), spec.partitions, settings.replication_factor, _configs(spec, settings))
