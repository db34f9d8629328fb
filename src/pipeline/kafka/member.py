"""A member of a consumer group: fetching, committing, rebalances, heartbeats, stopping.

One task fetches, one commits, and one watches the heartbeat; the work on partitions adds more. If one fails, all end.
Subclasses decide what happens to records.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from pipeline.contracts import TopicName
from pipeline.errors import most_severe
from pipeline.kafka.client.group import KafkaGroupClient
from pipeline.kafka.errors import BatchUndecodable, BrokerUnavailable
from pipeline.kafka.gauges import MemberGauges
from pipeline.kafka.partition import HeldPartition, PartitionLease, PartitionWork, continues
from pipeline.kafka.protocols import GroupClient, GroupClientFactory, Partition
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings
from pipeline.observability import KafkaMetrics, get_logger

log = get_logger(__name__)

_FRESH_SHARE: Final = 0.8
"""Work stops when the last heartbeat is older than this share of the session timeout."""
_RECONNECT: Final = 1.0
"""Seconds between two attempts to connect."""
_CLOSE_WITHIN: Final = 5.0
"""Seconds to leave the group."""


class GroupMember(ABC):
    """Implements :class:`pipeline.kafka.protocols.Runner` around the work of partitions.

    It commits offsets up to the lowest unfinished one. During a rebalance, running work continues but waits before its
    next effect. If the same membership gets the partition back in the next generation, the work continues; otherwise it
    is cancelled. Without a heartbeat for 0.8 of the session timeout, all work is cancelled; it starts again from the
    committed offsets if the group still knows this member. At a batch that cannot be decoded, the member ends. Before
    that, it finishes and commits the records before the batch, as far as ``stop_grace_seconds`` allows. It commits
    nothing after the batch.
    """

    def __init__(
        self,
        *,
        group: str,
        topics: Sequence[TopicName],
        kafka: KafkaSettings,
        settings: ConsumerSettings,
        metrics: KafkaMetrics | None = None,
        connect: GroupClientFactory | None = None,
    ) -> None:
        self._group = group
        self._settings = settings
        self._metrics = metrics or KafkaMetrics()
        self._connect: GroupClientFactory = connect or (
            lambda: KafkaGroupClient.connect(group, topics, kafka, settings)
        )
        self._client: GroupClient | None = None
        self._held: dict[Partition, HeldPartition] = {}
        self._gauges = MemberGauges(self._metrics, group, self._held)
        self._membership: tuple[str, int] | None = None
        self._limbo_since: float | None = None
        self._expired = False
        self._epoch = 0
        self._turned = time.monotonic()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._commit_wanted = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._failure: Exception | None = None
        self._problem: BrokerUnavailable | None = None
        self._ended = False

    @abstractmethod
    def _open(self, partition: Partition, lease: PartitionLease) -> PartitionWork:
        """Return the work for a partition that this member has just got."""

    # the public interface

    async def run(self) -> None:
        """See :meth:`pipeline.kafka.protocols.Runner.run`."""
        self._client = await self._connected()
        if self._client is None:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await self._serve(self._client, tasks)
                finally:
                    self._ended = True  # from now on nothing begins, not even after a commit or a rebalance
                    for held in self._held.values():
                        held.work.wind_down()
                        held.lease.lose()
        except BaseExceptionGroup as errors:
            raise most_severe(errors) from errors
        finally:
            await self._leave(self._client)

    def stop(self) -> None:
        """See :meth:`pipeline.kafka.protocols.Runner.stop`."""
        self._stopping.set()

    @property
    def ready(self) -> bool:
        """Whether the member has joined its group and its heartbeat is fresh."""
        joined = self._membership is not None and not self._stopping.is_set()
        return joined and not self._expired and (self._limbo_since is not None or self._fresh())

    @property
    def condition(self) -> str:
        """See :attr:`pipeline.kafka.protocols.Runner.condition`."""
        if self.ready:
            return "joined, heartbeat fresh"
        if self._problem is not None:
            return f"not in its group: {self._problem}"
        if self._membership is None:
            return "not in its group yet: it is joining"
        return f"no heartbeat was answered for {self._the_client.heartbeat_age:.0f} s"

    @property
    def alive(self) -> bool:
        """Whether the loop has run recently."""
        return time.monotonic() - self._turned < self._settings.liveness_timeout_seconds

    def holds(self, topic: TopicName, number: int) -> bool:
        """Return whether this member has a partition now."""
        return Partition(topic, number) in self._held

    # called by the work of partitions

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that may fail the whole member."""
        if self._tasks is None:
            work.close()
            raise RuntimeError("the member does not run")
        try:
            return self._tasks.create_task(work)
        except RuntimeError:  # another task has failed: its error is raised
            work.close()
            raise asyncio.CancelledError from None

    def _progressed(self, partition: Partition) -> None:
        """Note that records were finished, or that a call of the handler ended."""
        held = self._held.get(partition)
        if held and held.paused and self._limbo_since is None and held.work.has_room:
            held.paused = False
            self._the_client.resume(partition)
        self._idle.set()

    # called by the client

    async def on_revoked(self) -> None:
        """A rebalance begins."""
        self._limbo_since = time.monotonic()
        if not self._fresh() or self._the_client.membership is None:
            self._lose_all("membership_lost")
        for held in self._held.values():
            held.lease.suspend()
        try:
            await self._commit()
        except Exception as error:  # noqa: BLE001 - the client would only log it; the watch raises it
            self._failure = error

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """A rebalance ended. It awaits nothing, so that no record is fetched before its partition is in ``_held``."""
        try:
            self._assign(partitions)
        except Exception as error:  # noqa: BLE001 - the client would only log it; the watch raises it
            self._failure = error

    def _assign(self, partitions: frozenset[Partition]) -> None:
        if self._ended:
            return  # the member would wait for a new task, but nothing would end it
        before, self._membership = self._membership, self._the_client.membership
        if not continues(before, self._membership):
            self._lose_all("membership_changed")
        for gone in self._held.keys() - partitions:
            log.info("partition_lost", group=self._group, topic=gone.topic, partition=gone.number)
            self._lose(gone)
        for partition in partitions & self._held.keys():
            self._come_back(partition)
        for partition in partitions - self._held.keys():
            self._begin(partition)
        self._limbo_since, self._expired = None, False
        self._epoch += 1
        self._metrics.consumer_rebalances.labels(stage=self._group).inc()
        log.info("partitions_assigned", group=self._group, partitions=len(partitions))

    # tasks

    async def _fetch(self) -> None:
        while True:
            try:
                fetched = await self._the_client.fetch(
                    self._settings.max_poll_records, self._settings.poll_interval_seconds
                )
            except BatchUndecodable as error:
                log.error("batch_undecodable", group=self._group, **error.position, why=error.why)  # noqa: TRY400
                await self._finish_before(error)
                raise
            for partition, records in fetched.items():
                held = self._held.get(partition)
                if held is None:
                    self._expired = True  # its work was cancelled: fetch its records again from the committed offset
                    continue
                held.work.take(records)
                self._pause_full(partition, held)

    async def _finish_before(self, error: BatchUndecodable) -> None:
        """Let the partition's records before a batch finish, then commit the offset of the batch."""
        partition = Partition(error.topic, error.partition)
        held = self._held.get(partition)
        try:
            async with asyncio.timeout(self._settings.stop_grace_seconds):
                while held and self._held.get(partition) is held and held.work.offsets.span:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            log.warning("stop_grace_over", group=self._group)
            return
        if held and self._held.get(partition) is held:
            held.work.offsets.skip_to(error.offset)
            await self._commit()

    async def _commit_often(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.commit_interval_seconds):
                    await self._commit_wanted.wait()
            except TimeoutError:
                pass  # the usual case: no work waits for a commit
            self._commit_wanted.clear()
            if self._limbo_since is None:
                await self._commit()

    async def _watch(self) -> None:
        while True:
            self._turned = time.monotonic()
            if self._failure:
                raise self._failure
            self._check_heartbeat()
            if self._expired and self._limbo_since is None and self._fresh():
                await self._start_over()
            self._gauges.update(self._the_client)
            await asyncio.sleep(self._settings.poll_interval_seconds)

    def _fresh(self) -> bool:
        return self._the_client.heartbeat_age < _FRESH_SHARE * self._settings.session_timeout_seconds

    def _check_heartbeat(self) -> None:
        if self._limbo_since is not None:
            # no effect is allowed in limbo, and after this time the group has removed this member
            waited = time.monotonic() - self._limbo_since
            if self._held and waited > (1 + _FRESH_SHARE) * self._settings.session_timeout_seconds:
                self._lose_all("rebalance_stuck")
        elif self._held and (not self._fresh() or any(held.lease.lost for held in self._held.values())):
            self._lose_all("heartbeat_stale")
            self._expired = True

    async def _start_over(self) -> None:
        """Begin again at the committed offsets: the group still knows this member, so no other has its partitions."""
        epoch = self._epoch
        for partition in self._the_client.assignment() - self._held.keys():
            offset = await self._the_client.start_offset(partition)
            if offset is None or epoch != self._epoch or self._limbo_since is not None or not self._fresh():
                return
            # without an await in between: otherwise records are fetched before their work exists
            self._the_client.seek(partition, offset)
            self._the_client.resume(partition)  # it may have been full when its work was cancelled
            self._begin(partition)
        self._expired = False
        log.info("partitions_resumed", group=self._group, partitions=len(self._held))

    # partitions

    def _begin(self, partition: Partition) -> None:
        lease = PartitionLease(self._fresh)
        self._held[partition] = HeldPartition(self._open(partition, lease), lease)

    def _come_back(self, partition: Partition) -> None:
        held = self._held[partition]
        held.lease.hold()
        held.paused = False
        if held.work.offsets.next_offset is not None:
            self._the_client.seek(partition, held.work.offsets.next_offset)
        self._pause_full(partition, held)

    def _lose(self, partition: Partition) -> None:
        held = self._held.pop(partition)
        held.lease.lose()
        held.work.cancel()

    def _lose_all(self, why: str) -> None:
        if self._held:
            age = round(self._the_client.heartbeat_age, 1)
            log.warning("partitions_lost", group=self._group, partitions=len(self._held), why=why, heartbeat_age=age)
        for partition in list(self._held):
            self._lose(partition)

    def _pause_full(self, partition: Partition, held: HeldPartition) -> None:
        if not held.paused and held.work.full:
            held.paused = True
            self._the_client.pause(partition)

    # committing

    async def _commit(self) -> None:
        """Commit the finished offsets. After a failure, the next commit or the next member does it."""
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds), self._commit_lock:
                await self._commit_due()
        except TimeoutError:
            self._count_commit("failed")
            log.warning("commit_timed_out", group=self._group)

    async def _commit_due(self) -> None:
        held_now = dict(self._held)
        due = {
            partition: held.work.offsets.to_commit
            for partition, held in held_now.items()
            if held.work.offsets.to_commit is not None and held.work.offsets.to_commit > held.committed
        }
        if not due or not self._fresh() or self._the_client.membership is None:
            return
        done = await self._the_client.commit(due)
        self._count_commit("ok" if done else "failed")
        for partition, offset in due.items() if done else ():
            held = held_now[partition]
            if self._held.get(partition) is held:  # else it was lost meanwhile, and perhaps assigned again
                held.committed = offset
                held.work.note_commit(offset)

    def _count_commit(self, result: str) -> None:
        self._metrics.consumer_commits.labels(stage=self._group, result=result).inc()

    # beginning and end

    async def _connected(self) -> GroupClient | None:
        while not self._stopping.is_set():
            self._turned = time.monotonic()
            try:
                client = await self._connect()
            except BrokerUnavailable as error:
                self._problem = error
                log.warning("connection_failed", component=self._group, code=error.code, message=error.message)
            else:
                self._problem = None
                return client
            try:
                async with asyncio.timeout(_RECONNECT):
                    await self._stopping.wait()
            except TimeoutError:
                pass
        return None

    async def _serve(self, client: GroupClient, tasks: asyncio.TaskGroup) -> None:
        client.subscribe(self)
        services = [tasks.create_task(service()) for service in (self._fetch, self._commit_often, self._watch)]
        services.append(tasks.create_task(self._gauges.follow_paused(lambda: self._the_client)))
        await self._stopping.wait()
        services[0].cancel()
        await self._drain()
        for service in services:
            service.cancel()

    async def _drain(self) -> None:
        """Let running calls finish within the grace period, then cancel the rest."""
        for held in self._held.values():
            held.work.wind_down()
        try:
            async with asyncio.timeout(self._settings.stop_grace_seconds):
                while any(held.work.busy for held in self._held.values()):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            log.warning("stop_grace_over", group=self._group)
        for held in self._held.values():
            held.lease.lose()
            held.work.cancel()

    async def _leave(self, client: GroupClient) -> None:
        try:
            if self._limbo_since is None:
                await self._commit()
        finally:
            await client.close(_CLOSE_WITHIN)
            self._membership = None
            self._gauges.end()

    @property
    def _the_client(self) -> GroupClient:
        if self._client is None:
            raise RuntimeError("the member does not run")
        return self._client
