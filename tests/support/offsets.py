"""How far consumer groups have come, seen from outside: what they committed, compared with what their topics hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

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
            places = [place for topic in topics for place in await self._places(client, topic)]
            while places:
                ends = await client.end_offsets(places)
                places = [place for place in places if ends[place] > (await client.committed(place) or 0)]
                if places:
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

    async def _places(self, client: Any, topic: TopicName) -> list[Any]:
        name = self._names.topic(topic)
        await client._client.force_metadata_update()
        client._client.add_topic(name)
        await client._client.force_metadata_update()
        return [TopicPartition(name, number) for number in client.partitions_for_topic(name) or ()]
