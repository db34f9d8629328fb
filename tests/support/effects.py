"""The effects of the pipeline on the outside world, each with a name; and ports that notice them.

An effect is one call of a port: the creation of an object, or an erasure in it, named by its kind; a deletion, named by
what is deleted; a publication, named by its topic; a commit, named by its group; the PUT of a result; the POST of a
callback. Production code knows nothing of the names: :class:`NoticingPorts` derives them from keys, topics and groups.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import replace
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from pipeline.app import Ports
from pipeline.app.ports import ConnectedPublisher
from pipeline.contracts import DEAD_LETTER_ENDING, SPECS, OutgoingRecord, Record, RecordPosition, Topic, TopicName
from pipeline.errors import PipelineError
from pipeline.jobs.partners import Answer, Notifications, Notifier, Resume
from pipeline.jobs.transfer import Transfers, Uploader, UrlSource
from pipeline.kafka import ConsumerSettings, GroupClient, KafkaSettings
from pipeline.kafka.protocols import Partition, RebalanceListener
from pipeline.observability import CheckedClock, Metrics
from pipeline.outbound import Circuits
from pipeline.settings import JobIntegration, Settings
from pipeline.storage import ObjectInfo, ObjectStore, StoreSettings

_JOB: Final = r"jobs/[^/]+/[^/]+/"
_WORK: Final = _JOB + r"(?:attempts/\d+/)?"
_NOTIFICATION: Final = _WORK + r"(?:again/[^/]+/)?"

KINDS: Final[Mapping[str, re.Pattern[str]]] = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "job": _JOB + r"job\.json",
        "announcement": _JOB + r"announcements/\d+-[0-9a-f]+\.json",
        "conflict": _JOB + r"conflicts/[0-9a-f]+\.json",
        "started": _WORK + r"started/\d+\.json",
        "start-ended": _WORK + r"(?:parts/[^/]+/started/\d+/|started/)\d+\.ended\.json",
        "chunk-started": _WORK + r"parts/[^/]+/started/\d+/\d+\.json",
        "source": _WORK + r"parts/[^/]+/source\.json",
        "plan-page": _WORK + r"parts/[^/]+/plan/\d+\.json",
        "plan": _WORK + r"parts/[^/]+/plan\.json",
        "changed": _WORK + r"parts/[^/]+/changed\.json",
        "part": _WORK + r"parts/[^/]+/\d+-[0-9a-f]+\.csv(?:\.aes)?",
        "manifest": _WORK + r"parts/[^/]+/\d+\.json",
        "processed": _WORK + r"processed\.json",
        "outcome": _WORK + r"outcome\.json",
        "try": _NOTIFICATION + r"told/\d+(?:\.answer)?\.json",
        "confirmed": _NOTIFICATION + r"(?:confirmed|refused)\.json",
        "waiting": _JOB + r"waiting/[a-z]+-[0-9a-f]{16}-\d+\.json",
        "due": r"due/.+",
        "open": r"open/.+",
        "decided": r"decided/.+",
        "purge": r"purge/.+",
        "ended": r"ended/.+",
        "rate": r"rates/.+",
        "segment": r"audit/.+",
        "checkpoint": r"audit-checkpoints/.+",
        "audit-settings": r"audit-settings/.+",
        "switch": r"switches/[^/]+/\d+\.json",
        "command": r"commands/\d{13}-[0-9a-f]{8}\.json",
        "dead-letter": r"dead-letters/[0-9a-f]{32}\.json",
    }.items()
}
"""The kinds of objects, by their keys (docs/decisions/0002-job-store-tree.md)."""

_PUBLISH: Final = (
    "card-batch.requested",
    "card-batch.quarantine",
    "card-batch.chunks",
    "card-batch.processed",
    "card-batch.uploaded",
    "card-batch.failed",
    "card-batch.completed",
    "card-batch.dead-letter",
    "events",
    "events.quarantine",
    "audit.events",
    "audit.dead-letter",
)
_COMMIT: Final = ("process", "chunks", "upload", "confirm", "watch", "audit")

_ERASED: Final = ("announcement", "outcome", "try", "confirmed", "waiting")

_DELETED: Final[Mapping[str, re.Pattern[str]]] = {
    "parts": re.compile(_WORK + r"parts/.+"),
    "open": re.compile(r"(?:open|decided)/.+"),
    **{kind: KINDS[kind] for kind in ("waiting", "due", "purge", "rate", "checkpoint")},
}

EFFECTS: Final[tuple[str, ...]] = (
    *(f"store.{kind}" for kind in KINDS),
    *(f"erase.{kind}" for kind in _ERASED),
    *(f"delete.{what}" for what in _DELETED),
    *(f"publish.{topic}" for topic in _PUBLISH),
    *(f"commit.{group}" for group in _COMMIT),
    "put.result",
    "post.callback",
)
"""All effects of the ``pipeline`` command."""

CRASH_POINTS: Final[tuple[str, ...]] = tuple(f"{side}:{name}" for name in EFFECTS for side in ("before", "after"))

_QUARANTINES: Final = frozenset({Topic.EVENTS_QUARANTINE, Topic.EVENTS_STEPUP_QUARANTINE, Topic.WEBHOOK_QUARANTINE})


def creation(key: str) -> str:
    """Return the name of creating an object.

    Raises:
        LookupError: No kind, or more than one, has such keys.
    """
    kinds = [kind for kind, pattern in KINDS.items() if pattern.fullmatch(key)]
    if len(kinds) != 1:
        raise LookupError(f"{key} is of the kinds {kinds}: give it one in {__name__}")
    return f"store.{kinds[0]}"


def deletions(keys: Sequence[str]) -> list[str]:
    """Return the names of deleting objects, which is one call: what is deleted, each name once.

    Raises:
        LookupError: Objects with such a key are never deleted.
    """
    names = dict[str, None]()
    for key in keys:
        found = [what for what, pattern in _DELETED.items() if pattern.fullmatch(key)]
        if len(found) != 1:
            raise LookupError(f"{key} is deleted, and is among {found}: give it one name in {__name__}")
        names[f"delete.{found[0]}"] = None
    return list(names)


def publication(topic: TopicName) -> str:
    """Return the name of publishing to a topic: those of events share one, those of their quarantine too.

    Raises:
        LookupError: The dead letters of a subscriber's group, which the command never publishes.
    """
    if topic in _QUARANTINES:
        return "publish.events.quarantine"
    if topic in SPECS and not topic.startswith("card-events."):
        return f"publish.{topic}"
    if topic.endswith(DEAD_LETTER_ENDING):
        raise LookupError(f"{topic} belongs to a subscriber")
    return "publish.events"


Around = Callable[[str], AbstractContextManager[None]]
"""Surrounds an effect, given its name."""


class NoticingPorts(Ports):
    """The ports of production, each effect surrounded by what a test says."""

    def __init__(self, around: Around) -> None:
        self._around = around

    @asynccontextmanager
    async def publisher(
        self, kafka: KafkaSettings, *, client_id: str, metrics: Metrics | None = None
    ) -> AsyncIterator[ConnectedPublisher]:
        async with super().publisher(kafka, client_id=client_id, metrics=metrics) as publisher:
            yield NoticingPublisher(publisher, self._around)

    async def group(
        self, name: str, topics: Sequence[TopicName], kafka: KafkaSettings, consumer: ConsumerSettings
    ) -> GroupClient:
        return NoticingGroup(name, await super().group(name, topics, kafka, consumer), self._around)

    def store(self, settings: StoreSettings) -> ObjectStore:
        return NoticingStore(super().store(settings), self._around)

    @asynccontextmanager
    async def transfers(
        self,
        settings: Settings,
        integration: JobIntegration,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        circuits: Circuits,
    ) -> AsyncIterator[Transfers]:
        opened: AbstractAsyncContextManager[Transfers] = super().transfers(
            settings, integration, clock=clock, metrics=metrics, circuits=circuits
        )
        async with opened as transfers:
            yield replace(transfers, uploader=NoticingUploader(transfers.uploader, self._around))

    @asynccontextmanager
    async def notifications(
        self,
        settings: Settings,
        integration: JobIntegration,
        *,
        clock: CheckedClock,
        metrics: Metrics,
        remember: Callable[[SecretStr], None],
        resume: Resume,
    ) -> AsyncIterator[Notifications]:
        opened: AbstractAsyncContextManager[Notifications] = super().notifications(
            settings, integration, clock=clock, metrics=metrics, remember=remember, resume=resume
        )
        async with opened as notifications:
            yield replace(notifications, notifier=NoticingNotifier(notifications.notifier, self._around))


class NoticingPublisher:
    """Notices publications."""

    def __init__(self, publisher: ConnectedPublisher, around: Around) -> None:
        self._publisher = publisher
        self._around = around

    @property
    def problem(self) -> PipelineError | None:
        return self._publisher.problem

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        with self._around(publication(record.topic)):
            return await self._publisher.publish(record)


class NoticingStore:
    """Notices creations, erasures and deletions."""

    def __init__(self, store: ObjectStore, around: Around) -> None:
        self._store = store
        self._around = around
        self.get = store.get
        self.stream = store.stream
        self.scan = store.scan
        self.folders = store.folders
        self.check = store.check
        self.close = store.close

    async def create(self, key: str, data: bytes) -> bool:
        with self._around(creation(key)):
            return await self._store.create(key, data)

    async def replace(self, key: str, data: bytes) -> None:
        with self._around(creation(key).replace("store.", "erase.")):
            await self._store.replace(key, data)

    async def delete(self, key: str) -> None:
        with self._around_all(deletions([key])):
            await self._store.delete(key)

    async def delete_all(self, keys: Sequence[str]) -> None:
        with self._around_all(deletions(keys)):
            await self._store.delete_all(keys)

    @contextmanager
    def _around_all(self, effects: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for effect in effects:
                stack.enter_context(self._around(effect))
            yield

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        return self._store.list(prefix)


class NoticingUploader:
    """Notices uploads: each with all its tries is one."""

    def __init__(self, uploader: Uploader, around: Around) -> None:
        self._uploader = uploader
        self._around = around

    async def put(self, target: UrlSource, *, size: int, body: Callable[[], AsyncGenerator[bytes, None]]) -> str:
        with self._around("put.result"):
            return await self._uploader.put(target, size=size, body=body)


class NoticingNotifier:
    """Notices callbacks."""

    def __init__(self, notifier: Notifier, around: Around) -> None:
        self._notifier = notifier
        self._around = around

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        with self._around("post.callback"):
            return await self._notifier.notify(url, job_guid=job_guid, body=body, request_id=request_id)


class NoticingGroup:
    """Notices commits."""

    def __init__(self, name: str, group: GroupClient, around: Around) -> None:
        self._name = name
        self._group = group
        self._around = around
        self.start_offset = group.start_offset
        self.assignment = group.assignment
        self.pause = group.pause
        self.resume = group.resume
        self.seek = group.seek
        self.end = group.end
        self.refresh_ends = group.refresh_ends
        self.close = group.close

    @property
    def heartbeat_age(self) -> float:
        return self._group.heartbeat_age

    @property
    def membership(self) -> tuple[str, int] | None:
        return self._group.membership

    def subscribe(self, listener: RebalanceListener) -> None:
        self._group.subscribe(listener)

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        return await self._group.fetch(max_records, wait)

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        with self._around(f"commit.{self._name}"):
            return await self._group.commit(offsets)


class Died(BaseException):
    """The process died here: nothing after it happens."""


class Effects:
    """Lets a worker die before or after its n-th effect."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.names: list[str] = []

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        self._reach(f"before:{name}")
        yield
        self._reach(f"after:{name}")

    def _reach(self, name: str) -> None:
        if self.left > 0:
            self.names.append(name)
            self.left -= 1
        if self.left == 0:
            raise Died(name)  # and so it does from now on: the dead do nothing
