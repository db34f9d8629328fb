"""Rights of operators who move groups: missing rights are found before anything is moved."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from support.secured_kafka import PASSWORD, SecuredKafka

from pipeline.contracts import TOPICS, Topic
from pipeline.kafka import KafkaSettings, NotAuthorized, Partition
from pipeline.kafka.admin import create_topics
from pipeline.kafka.client.admin import open_group
from pipeline.kafka.groups import plan_rewind, rewind
from pipeline.kafka.settings import Names

PREFIX: Final = "rights."
OPERATOR: Final = {"mechanism": "PLAIN", "username": "operator", "password": PASSWORD}
GROUP: Final = "rights-billing"
READABLE: Final = Partition(Topic.EVENTS_MANAGED_CARDS, 0)
OTHER: Final = Partition(Topic.EVENTS_MANAGED_ACCOUNTS, 0)

_TOPIC, _GROUP = 2, 3
_READ, _DESCRIBE = 3, 8
_ALLOW, _LITERAL = 3, 3


async def grant(settings: KafkaSettings, *rights: tuple[int, str, int]) -> None:
    """Give the operator rights: kind of resource, name, operation; wait until the brokers know them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        for kind, name, operation in rights:
            right = CreateAclsRequest(kind, name, _LITERAL, "User:operator", "*", operation, _ALLOW)
            assert "error_code=0" in str(await admin._send_request(right))
    finally:
        await admin.close()
    await asyncio.sleep(1)


async def test_a_rewind_needs_the_right_to_read_each_topic(secured_kafka: SecuredKafka) -> None:
    """Kafka takes the offsets of the topics that may be read, and refuses the others: a group moved by half."""
    all_rights = secured_kafka.settings("PLAINTEXT", topic_prefix=PREFIX)
    operator = secured_kafka.settings("SASLTLS", topic_prefix=PREFIX, tls=secured_kafka.tls(), sasl=OPERATOR)
    await create_topics(all_rights, [spec for spec in TOPICS if spec.topic in {READABLE.topic, OTHER.topic}])
    readable, other = (Names(all_rights).topic(one.topic) for one in (READABLE, OTHER))
    async with open_group(all_rights, GROUP) as group:
        await group.commit({READABLE: 0, OTHER: 0})
    await grant(
        all_rights,
        (_TOPIC, readable, _READ),
        (_TOPIC, other, _DESCRIBE),
        (_GROUP, GROUP, _READ),
        (_GROUP, GROUP, _DESCRIBE),
    )
    for act in (plan_rewind, rewind):
        with pytest.raises(NotAuthorized, match=other):
            await act(operator, GROUP, "latest")
    assert len((await rewind(operator, GROUP, "latest", topics=[READABLE.topic])).moves) > 0

    await grant(all_rights, (_TOPIC, other, _READ))
    assert {move.topic for move in (await rewind(operator, GROUP, "earliest")).moves} == {READABLE.topic, OTHER.topic}
