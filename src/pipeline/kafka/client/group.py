"""aiokafka's consumer as one member of a consumer group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest

from pipeline.contracts import Record, TopicName
from pipeline.errors import FatalError
from pipeline.kafka.client.causes import CLIENT_ERRORS, unavailable
from pipeline.kafka.client.connection import connection_options, create_no_topics, ensure_brokers, ensure_topics
from pipeline.kafka.client.records import DecodingWatch, record_of
from pipeline.kafka.errors import RecordsLost
from pipeline.kafka.protocols import Partition, RebalanceListener
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings, Names
from pipeline.observability import get_logger

log = get_logger(__name__)

_NEEDED: Final = ("_send_req", "member_id", "generation")


class KafkaGroupClient:
    """Implements :class:`~pipeline.kafka.protocols.GroupClient`: manual commits, no silent reset of offsets."""

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
        self._decoding = DecodingWatch(self._names)
        self._ends: dict[Any, int] = {}
        session_ms = round(settings.session_timeout_seconds * 1000)
        options |= {
            # to join may take as long as the group waits for its slowest member
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
    ) -> KafkaGroupClient:
        """Return a connected client that has not joined yet, after checking that its topics exist and may be described.

        Raises:
            BrokerUnavailable: It is not possible now; the code says why.
            FatalError: A certificate file cannot be used.
        """
        options = await asyncio.to_thread(connection_options, kafka_settings, client_id=f"card-pipeline-{group}")
        made = cls(group, topics, kafka_settings, settings, options)
        try:
            await made._start(kafka_settings.request_timeout_seconds)
        except CLIENT_ERRORS as error:
            raise await unavailable(error, kafka_settings, f"Group {made._names.group(group)}") from error
        return made

    async def _start(self, within: float) -> None:
        client = self._consumer._client  # noqa: SLF001
        create_no_topics(client)
        try:
            async with asyncio.timeout(within):
                await self._consumer.start()  # without topics: the coordinator exists, but has not joined
                await ensure_brokers(client)
                await ensure_topics(client, [self._names.topic(topic) for topic in self._topics])
        except BaseException:
            await self._drop()
            raise
        self._pulse.attach(self._consumer._coordinator)  # noqa: SLF001 - see Pulse
        self._decoding.attach(self._consumer)

    @property
    def heartbeat_age(self) -> float:
        """See GroupClient."""
        return self._pulse.age

    @property
    def membership(self) -> tuple[str, int] | None:
        """See GroupClient."""
        return self._pulse.membership

    def subscribe(self, listener: RebalanceListener) -> None:
        """See GroupClient."""
        names = [self._names.topic(topic) for topic in self._topics]
        self._consumer.subscribe(names, listener=_Listener(listener, self._partitions))

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        """See GroupClient. Nothing else runs between the client's answer and the return."""
        await self._decoding.check()
        try:
            drained = await self._consumer.getmany(timeout_ms=round(wait * 1000), max_records=max_records)
        except kafka.NoOffsetForPartitionError as error:
            # the group's first start: from the earliest record
            await self._to_beginning(error.args[0])
        except kafka.OffsetOutOfRangeError as error:
            for tp, offset in error.args[0].items():
                await self._out_of_range(tp, offset)
        except (kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError) as error:
            raise FatalError("kafka_not_authorized", f"Kafka refuses to let this group read: {error}") from error
        except kafka.KafkaError as error:
            if not error.retriable:
                raise FatalError("kafka_consumer_failed", f"The Kafka client gave up: {error!r}") from error
            log.warning("fetch_failed", why=type(error).__name__)
            await asyncio.sleep(wait)
        else:
            return {self._partition(tp): self._records(tp, raws) for tp, raws in drained.items()}
        return {}

    async def _to_beginning(self, tp: Any) -> bool:
        try:
            return bool(await self._consumer.seek_to_beginning(tp))
        except kafka.IllegalStateError:
            return False  # taken away meanwhile

    async def _out_of_range(self, tp: Any, offset: int) -> None:
        try:
            first = (await self._consumer.beginning_offsets([tp]))[tp]
            end = (await self._consumer.end_offsets([tp]))[tp]
        except kafka.KafkaError as error:
            log.warning("fetch_failed", why=type(error).__name__)
            return  # the next fetch finds it out of range again
        lost = RecordsLost(tp.topic, tp.partition, offset, first if offset < first else end)
        if not self._report_lost:
            raise lost
        log.error(
            "records_lost",
            topic=tp.topic,
            partition=tp.partition,
            first=lost.first,
            next=lost.next_kept,
        )
        await self._to_beginning(tp)

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """See GroupClient."""
        try:
            await self._consumer.commit({self._raw(partition): offset for partition, offset in offsets.items()})
        except (kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError) as error:
            raise FatalError("kafka_not_authorized", f"Kafka refuses to let this group commit: {error}") from error
        except kafka.KafkaError as error:
            log.warning("commit_failed", why=type(error).__name__)
            return False
        return True

    async def start_offset(self, partition: Partition) -> int | None:
        """See GroupClient."""
        tp = self._raw(partition)
        try:
            async with asyncio.timeout(self._wait):
                found: int | None = await self._consumer.committed(tp)
                if found is None:
                    found = (await self._consumer.beginning_offsets([tp]))[tp]
        except (kafka.KafkaError, TimeoutError):
            return None
        return found

    def assignment(self) -> frozenset[Partition]:
        """See GroupClient."""
        return self._partitions(self._consumer.assignment())

    def pause(self, partition: Partition) -> None:
        """See GroupClient."""
        self._consumer.pause(self._raw(partition))

    def resume(self, partition: Partition) -> None:
        """See GroupClient."""
        self._consumer.resume(self._raw(partition))

    def seek(self, partition: Partition, offset: int) -> None:
        """See GroupClient."""
        self._consumer.seek(self._raw(partition), offset)

    def end(self, partition: Partition) -> int | None:
        """See GroupClient."""
        tp = self._raw(partition)
        if tp not in self._consumer.assignment():
            return None
        ends = [end for end in (self._consumer.highwater(tp), self._ends.get(tp)) if end is not None]
        return max(ends, default=None)

    async def refresh_ends(self, partitions: Sequence[Partition]) -> None:
        """See GroupClient."""
        try:
            async with asyncio.timeout(self._wait):
                self._ends = await self._consumer.end_offsets([self._raw(partition) for partition in partitions])
        except CLIENT_ERRORS:
            return  # the last known ends stay

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - see GroupClient
        """See GroupClient."""
        try:
            async with asyncio.timeout(timeout):
                await self._consumer.stop()
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            log.warning("group_leave_failed", why=type(error).__name__)
        await self._drop()

    async def _drop(self) -> None:
        """End every task of the client. The client's own ``stop`` may wait for ever for answers."""
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
                continue  # the operating system closes the rest

    def _raw(self, partition: Partition) -> Any:
        return TopicPartition(self._names.topic(partition.topic), partition.number)

    def _partition(self, tp: Any) -> Partition:
        return Partition(self._names.logical(tp.topic), tp.partition)

    def _partitions(self, tps: Any) -> frozenset[Partition]:
        return frozenset(self._partition(tp) for tp in tps)

    def _records(self, tp: Any, raws: Any) -> list[Record]:
        topic = self._names.logical(tp.topic)
        return [record_of(raw, topic) for raw in raws]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    def __init__(self, listener: RebalanceListener, translate: Callable[[Any], frozenset[Partition]]) -> None:
        self._listener = listener
        self._translate = translate

    async def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ARG002 - always all of them
        await self._listener.on_revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._listener.on_assigned(self._translate(assigned))


class Pulse:
    """Knows when the group coordinator last heard from this member. aiokafka knows this too, but has no method for it.

    The age of a heartbeat starts when it was *sent*, because the coordinator's session timeout starts no earlier. The
    clock keeps running while the process is frozen (SIGSTOP, a paused container).
    tests/unit/kafka/client/test_heartbeat.py fails when the parts of the coordinator that are read here change.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._coordinator: Any = None

    def attach(self, coordinator: Any) -> None:
        """Start to watch.

        Raises:
            FatalError: The internals of this aiokafka version differ.
        """
        missing = [name for name in _NEEDED if not hasattr(coordinator, name)]
        if missing:
            raise FatalError("aiokafka_changed", f"aiokafka's group coordinator has no {', '.join(missing)} any more")
        send = coordinator._send_req  # noqa: SLF001 - every request passes here

        async def watched(request: Any) -> Any:
            sent_at = self._clock()
            answer = await send(request)
            if _recognised(request, answer):
                self._last = sent_at
            return answer

        coordinator._send_req = watched  # noqa: SLF001
        self._coordinator = coordinator

    @property
    def age(self) -> float:
        """Age of the last request that the coordinator answered for this member; infinite before the first."""
        return float("inf") if self._last is None else self._clock() - self._last

    @property
    def membership(self) -> tuple[str, int] | None:
        """Member id and generation, or None while the coordinator does not know this member."""
        known = self._coordinator is not None and self._coordinator.generation > 0
        return (self._coordinator.member_id, self._coordinator.generation) if known else None


def _recognised(request: Any, answer: Any) -> bool:
    if isinstance(request, HeartbeatRequest):
        # a rebalance under way does not end the session
        return answer.error_code in (0, kafka.RebalanceInProgressError.errno)
    return isinstance(request, SyncGroupRequest) and answer.error_code == 0
