"""The one place that holds aiokafka's consumer: names, records and errors are translated here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka

from pipeline.contracts import Record, TopicName
from pipeline.errors import FatalError
from pipeline.kafka import _unreadable
from pipeline.kafka._connection import connection_options
from pipeline.kafka._heartbeat import Pulse
from pipeline.kafka.errors import RecordsLost
from pipeline.kafka.names import Names
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings

log = structlog.get_logger(__name__)

_unreadable.install()

RAW_KEY: Final = "kafka_key"
"""Header put on a record whose key is not UTF-8: the key's bytes. Its ``key`` is empty then."""


class Partition(NamedTuple):
    """One partition of a logical topic."""

    topic: TopicName
    number: int


class Rebalances(Protocol):
    """Who is told about rebalances. Called by the client's coordination task, which waits for it: be quick."""

    async def on_revoked(self) -> None:
        """All partitions are taken away; the group has not been joined again yet."""
        ...

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """These partitions are this member's, the ones that came back included."""
        ...


class Group(Protocol):
    """What a member needs of a Kafka client."""

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the last successful heartbeat was sent."""
        ...

    @property
    def membership(self) -> tuple[str, int] | None:
        """Member id and generation, or None when the group does not know this member."""
        ...

    def subscribe(self, listener: Rebalances) -> None:
        """Join the group, now and whenever it is needed."""
        ...

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        """Return fetched records, at the latest after ``wait`` seconds (later during a rebalance)."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit; False when this member may not any more, or no coordinator answers."""
        ...

    async def start_offset(self, partition: Partition) -> int | None:
        """Return the committed offset, or the earliest where there is none; None when neither can be learnt now."""
        ...

    def assignment(self) -> frozenset[Partition]:
        """The partitions assigned last, even if the group has forgotten this member meanwhile."""
        ...

    def pause(self, partition: Partition) -> None:
        """Fetch no more of it, until resumed or assigned anew."""
        ...

    def resume(self, partition: Partition) -> None:
        """Fetch it again."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Fetch from this offset."""
        ...

    def end(self, partition: Partition) -> int | None:
        """The offset behind the partition's last record, as of the last fetch."""
        ...

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - never hangs, never raises
        """Leave the group and let go of everything."""
        ...


GroupFactory = Callable[[], Awaitable[Group]]


class AioGroup:
    """Wraps AIOKafkaConsumer: manual commits, no silent reset of offsets."""

    def __init__(
        self,
        group: str,
        topics: Sequence[TopicName],
        kafka_settings: KafkaSettings,
        settings: ConsumerSettings,
        options: Any,
    ) -> None:
        self._names = Names(kafka_settings)
        self._topics = topics
        self._report_lost = settings.lost_records == "report"
        self._wait = settings.commit_timeout_seconds
        self._pulse = Pulse()
        session_ms = round(settings.session_timeout_seconds * 1000)
        options |= {
            # joining may take as long as the group waits for its slowest member
            "request_timeout_ms": max(options["request_timeout_ms"], session_ms + 5000)
        }
        self._consumer: Any = AIOKafkaConsumer(
            **options,
            group_id=self._names.group(group),
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=session_ms,
            heartbeat_interval_ms=round(session_ms * 0.3),
            max_poll_interval_ms=round(max(300.0, settings.stop_grace_seconds + 60.0) * 1000),
            max_partition_fetch_bytes=max(1 << 20, 2 * kafka_settings.max_record_bytes),
            fetch_max_bytes=16 << 20,
            fetch_max_wait_ms=round(settings.fetch_wait_seconds * 1000),
        )

    @classmethod
    async def connect(
        cls, group: str, topics: Sequence[TopicName], kafka_settings: KafkaSettings, settings: ConsumerSettings
    ) -> AioGroup:
        """Return a connected client that has not joined yet.

        Raises:
            KafkaError, OSError, TimeoutError: No broker answered.
            FatalError: A certificate file cannot be used.
        """
        options = await asyncio.to_thread(connection_options, kafka_settings, client_id=f"card-pipeline-{group}")
        made = cls(group, topics, kafka_settings, settings, options)
        await made._start(kafka_settings.request_timeout_seconds)
        return made

    async def _start(self, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await self._consumer.start()  # without topics: the coordinator exists, but has not joined
        except BaseException:
            await self._drop()
            raise
        self._pulse.attach(self._consumer._coordinator)  # noqa: SLF001 - see _heartbeat

    @property
    def heartbeat_age(self) -> float:
        """See :class:`Group`."""
        return self._pulse.age

    @property
    def membership(self) -> tuple[str, int] | None:
        """See :class:`Group`."""
        return self._pulse.membership

    def subscribe(self, listener: Rebalances) -> None:
        """See :class:`Group`."""
        names = [self._names.topic(topic) for topic in self._topics]
        self._consumer.subscribe(names, listener=_Listener(listener, self._partitions))

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        """See :class:`Group`. Between the client's answer and the return nothing else runs."""
        try:
            drained = await self._consumer.getmany(timeout_ms=round(wait * 1000), max_records=max_records)
        except kafka.NoOffsetForPartitionError as error:
            # the group's first start: from the earliest record
            await self._to_beginning(error.args[0])
        except kafka.OffsetOutOfRangeError as error:
            for place, offset in error.args[0].items():
                await self._out_of_range(place, offset)
        except (kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError) as error:
            raise FatalError("kafka_not_authorized", f"Kafka refuses to let this group read: {error}") from error
        except kafka.KafkaError as error:
            if not error.retriable:
                raise FatalError("kafka_consumer_failed", f"The Kafka client gave up: {error!r}") from error
            log.warning("fetch_failed", why=type(error).__name__)
            await asyncio.sleep(wait)
        else:
            return {self._partition(place): [self._record(raw) for raw in raws] for place, raws in drained.items()}
        return {}

    async def _to_beginning(self, place: Any) -> bool:
        try:
            return bool(await self._consumer.seek_to_beginning(place))
        except kafka.IllegalStateError:
            return False  # taken away meanwhile

    async def _out_of_range(self, place: Any, offset: int) -> None:
        try:
            first = (await self._consumer.beginning_offsets([place]))[place]
            end = (await self._consumer.end_offsets([place]))[place]
        except kafka.KafkaError as error:
            log.warning("fetch_failed", why=type(error).__name__)
            return  # the next fetch finds it out of range again
        lost = RecordsLost(place.topic, place.partition, offset, first if offset < first else end)
        if not self._report_lost:
            raise lost
        log.error("records_lost", topic=place.topic, partition=place.partition, first=lost.first, next=lost.next_kept)
        await self._to_beginning(place)

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """See :class:`Group`."""
        try:
            await self._consumer.commit({self._place(partition): offset for partition, offset in offsets.items()})
        except (kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError) as error:
            raise FatalError("kafka_not_authorized", f"Kafka refuses to let this group commit: {error}") from error
        except kafka.KafkaError as error:
            log.warning("commit_failed", why=type(error).__name__)
            return False
        return True

    async def start_offset(self, partition: Partition) -> int | None:
        """See :class:`Group`."""
        place = self._place(partition)
        try:
            async with asyncio.timeout(self._wait):
                found: int | None = await self._consumer.committed(place)
                if found is None:
                    found = (await self._consumer.beginning_offsets([place]))[place]
        except (kafka.KafkaError, TimeoutError):
            return None
        return found

    def assignment(self) -> frozenset[Partition]:
        """See :class:`Group`."""
        return self._partitions(self._consumer.assignment())

    def pause(self, partition: Partition) -> None:
        """See :class:`Group`."""
        self._consumer.pause(self._place(partition))

    def resume(self, partition: Partition) -> None:
        """See :class:`Group`."""
        self._consumer.resume(self._place(partition))

    def seek(self, partition: Partition, offset: int) -> None:
        """See :class:`Group`."""
        self._consumer.seek(self._place(partition), offset)

    def end(self, partition: Partition) -> int | None:
        """See :class:`Group`."""
        place = self._place(partition)
        if place not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(place)
        return end

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - see Group
        """See :class:`Group`."""
        try:
            async with asyncio.timeout(timeout):
                await self._consumer.stop()
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            log.warning("group_leave_failed", why=type(error).__name__)
        await self._drop()

    async def _drop(self) -> None:
        """End every task of the client: its own ``stop`` waits for answers that may never come."""
        consumer = self._consumer
        consumer._closed = True  # noqa: SLF001 - or its finalizer warns
        owned = [
            getattr(consumer._coordinator, name, None)  # noqa: SLF001
            for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
        ]
        tasks: set[asyncio.Task[Any]] = {task for task in owned if task is not None and not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for part in (consumer._fetcher, consumer._client):  # noqa: SLF001
            try:
                async with asyncio.timeout(1.0):
                    if part is not None:
                        await part.close()
            except (kafka.KafkaError, OSError, TimeoutError):
                continue  # the operating system closes what is left

    def _place(self, partition: Partition) -> Any:
        return TopicPartition(self._names.topic(partition.topic), partition.number)

    def _partition(self, place: Any) -> Partition:
        return Partition(self._names.logical(place.topic), place.partition)

    def _partitions(self, places: Any) -> frozenset[Partition]:
        return frozenset(self._partition(place) for place in places)

    def _record(self, raw: Any) -> Record:
        key, headers = decoded(raw.key, raw.headers)
        return Record(
            topic=self._names.logical(raw.topic),
            partition=raw.partition,
            offset=raw.offset,
            key=key,
            value=raw.value or b"",
            headers=headers,
            timestamp_ms=raw.timestamp,
        )


def decoded(
    key: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """Return a record's key as text and its headers; a key that is no text is kept as header :data:`RAW_KEY`."""
    kept = tuple((name, value or b"") for name, value in headers)
    try:
        return (key or b"").decode(), kept
    except UnicodeDecodeError:
        return "", (*kept, (RAW_KEY, key or b""))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    def __init__(self, listener: Rebalances, translate: Callable[[Any], frozenset[Partition]]) -> None:
        self._listener = listener
        self._translate = translate

    async def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ARG002 - always all of them
        await self._listener.on_revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._listener.on_assigned(self._translate(assigned))
