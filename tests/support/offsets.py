"""How far consumer groups have come, seen from outside: what they committed, compared with what their topics hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest

from pipeline.contracts import TopicName
from pipeline.kafka import KafkaSettings
from pipeline.kafka.settings import Names


class Offsets:
    """Asks the broker, without joining any group."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._names = Names(kafka)
        self._clients: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.stop()

    async def caught_up(self, group: str, topics: Sequence[TopicName], seconds: float) -> None:
        """Wait until a group has committed every record that its topics hold now. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            client = await self._client(group)
            partitions = [partition for topic in topics for partition in await self._partitions(client, topic)]
            while partitions:
                ends = await client.end_offsets(partitions)
                partitions = [
                    partition for partition in partitions if ends[partition] > (await client.committed(partition) or 0)
                ]
                if partitions:
                    await asyncio.sleep(0.05)

    async def _client(self, group: str) -> Any:
        if group not in self._clients:
            client = AIOKafkaConsumer(
                bootstrap_servers=self._kafka.bootstrap_servers,
                group_id=self._names.group(group),
                enable_auto_commit=False,
            )
            self._clients[group] = client
            await client.start()
        return self._clients[group]

    async def _partitions(self, client: Any, topic: TopicName) -> list[Any]:
        name = self._names.topic(topic)
        await client._client.force_metadata_update()
        client._client.add_topic(name)
        await client._client.force_metadata_update()
        return [TopicPartition(name, number) for number in client.partitions_for_topic(name) or ()]


async def remove_members(kafka: KafkaSettings, groups: Sequence[str]) -> None:
    """Let the members of some groups leave. Killed ones would keep their partitions until their sessions end."""
    names = Names(kafka)
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        for group in map(names.group, groups):
            node = await admin.find_coordinator(group)
            [described] = await admin.describe_consumer_groups([group], node)
            for member in described.groups[0][5]:
                await admin._send_request(LeaveGroupRequest(group, member[0]), node)
    finally:
        await admin.close()
