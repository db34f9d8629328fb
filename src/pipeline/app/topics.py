"""Checks the topics of a process. The process is not ready before all exist; differences raise an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from pipeline.contracts import Topic, TopicName, TopicSpec
from pipeline.errors import FatalError
from pipeline.kafka import BrokerUnavailable, KafkaSettings, NotAuthorized
from pipeline.kafka.admin import TopicFinding, check_topics
from pipeline.observability import Check, Health, Metrics
from pipeline.settings import Settings

log = structlog.get_logger(__name__)

_OF_JOBS: Final = frozenset({Topic.BATCH_FAILED, Topic.BATCH_DEAD_LETTER, Topic.AUDIT_EVENTS})
_OF_PROCESS: Final[Mapping[str, frozenset[TopicName]]] = {
    "process": _OF_JOBS | {Topic.BATCH_REQUESTED, Topic.BATCH_CHUNKS, Topic.BATCH_PROCESSED},
    "upload": _OF_JOBS | {Topic.BATCH_PROCESSED, Topic.BATCH_UPLOADED},
    "confirm": _OF_JOBS
    | {Topic.BATCH_REQUESTED, Topic.BATCH_CHUNKS, Topic.BATCH_PROCESSED, Topic.BATCH_UPLOADED, Topic.BATCH_COMPLETED},
}
"""The topics that each stage reads and writes. Its Kafka user may describe no others (docs/explanation/security.md)."""
_NOT_OF_INGRESS: Final = frozenset(
    {
        Topic.BATCH_CHUNKS,
        Topic.BATCH_PROCESSED,
        Topic.BATCH_UPLOADED,
        Topic.BATCH_COMPLETED,
        Topic.AUDIT_DEAD_LETTER,
    }
    | _OF_JOBS
) - {Topic.AUDIT_EVENTS}
_MISSING: Final = "missing"

_LOOK_AGAIN: Final = 5.0
"""Seconds between two checks while a topic is missing, or the cluster does not describe its topics."""
_LOOK_OFTEN: Final = 600.0
"""Seconds between two checks of existing topics, which an operator may change."""


def topics_of(process: str, settings: Settings) -> list[TopicSpec]:
    """Return the topics that a process reads or writes, and that the configured sources need."""
    if process == "ingress":
        return [spec for spec in settings.topics if spec.topic not in _NOT_OF_INGRESS]
    if process == "audit":
        wanted: frozenset[TopicName] = frozenset(
            {Topic.AUDIT_EVENTS, Topic.AUDIT_DEAD_LETTER, *settings.audited_topics}
        )
        return [spec for spec in settings.topics if spec.topic in wanted]
    return [spec for spec in settings.topics if spec.topic in _OF_PROCESS[process]]


TopicCheck = Callable[..., Awaitable[Sequence[TopicFinding]]]


@dataclass
class TopicWatch:
    """Checks the topics, as a part of the process.

    At the start, the process is not ready until all exist, so a rollout without `topics create` stops there. A topic
    that is deleted later, or that differs from the table, raises an alarm. The process stays ready, so that the other
    sources and stages continue.
    """

    kafka: KafkaSettings
    specs: Sequence[TopicSpec]
    metrics: Metrics
    check: TopicCheck = check_topics
    name: str = "topics"
    alarms: Mapping[str, Check] = field(default_factory=dict)
    url: None = None
    _health: Health = field(default=Health(ok=False, message="not looked at yet"))
    _reported: frozenset[TopicFinding] = frozenset()
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def checks(self) -> Mapping[str, Check]:
        """Check that all topics exist."""
        return {self.name: lambda: self._health}

    @property
    def alive(self) -> Check:
        """A check that always passes."""
        return lambda: Health(ok=True)

    @property
    def started(self) -> bool:
        """Whether all topics have existed once."""
        return self._health.ok

    async def serve(self) -> None:
        """Check again and again until stopped, because cluster and rights may change."""
        while not self._stopped.is_set():
            looked = await self._look()
            try:
                async with asyncio.timeout(_LOOK_OFTEN if looked and self._health.ok else _LOOK_AGAIN):
                    await self._stopped.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Stop the checks."""
        self._stopped.set()

    async def _look(self) -> bool:
        """Check once; return whether the cluster described its topics."""
        try:
            try:
                findings = await self.check(self.kafka, self.specs)
            except NotAuthorized as error:
                findings = await self.check(self.kafka, self.specs, configs=False)
                log.warning("topic_settings_unchecked", code=error.code, message=error.message)
        except BrokerUnavailable as error:
            if not self._health.ok:
                self._health = Health(ok=False, message=str(error))
            return False
        except FatalError as error:
            # the embedded broker, which creates topics on first use, or a cluster without a controller at the moment
            self._health = Health(ok=True, message=f"not looked at: {error.message}")
            return False
        self._report(frozenset(one for one in findings if one.breaks))
        return True

    def _report(self, findings: frozenset[TopicFinding]) -> None:
        gauge = self.metrics.topic_differences
        for gone in self._reported - findings:
            gauge.remove(gone.name, gone.rule)
        for found in findings:
            gauge.labels(found.name, found.rule).set(1)
        for new in sorted(findings - self._reported, key=lambda one: (one.name, one.rule)):
            log.error(
                "topic_differs",
                topic=new.name,
                rule=new.rule,
                expected=new.expected,
                found=new.found,
                remedy=new.remedy,
            )
        self._reported = findings
        missing = sorted(one.name for one in findings if one.rule == _MISSING)
        if missing and not self._health.ok:
            message = f"kafka_topic_missing: {', '.join(missing)}: run pipeline topics create, or grant Describe"
            self._health = Health(ok=False, message=message)
        elif findings:
            differing = ", ".join(sorted({one.name for one in findings}))
            self._health = Health(ok=True, message=f"differing from the table, see pipeline topics check: {differing}")
        else:
            self._health = Health(ok=True, message="all as they should be")
