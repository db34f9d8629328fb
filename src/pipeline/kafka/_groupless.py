"""The client that reads without a group: it joins nothing, and commits nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka

from pipeline.kafka._connection import connection_options
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.settings import KafkaSettings


@asynccontextmanager
async def groupless(settings: KafkaSettings, what: str, *assigned: str) -> AsyncIterator[Any]:
    """Give aiokafka's consumer, started, with all partitions of the ``assigned`` topics (the cluster's names).

    Args:
        settings: The cluster.
        what: Names in errors what is read.
        assigned: None, where partitions will be assigned later.

    Raises:
        BrokerUnavailable: No answer in time, also later on.
    """
    options = await asyncio.to_thread(connection_options, settings, client_id="card-pipeline-reader")
    consumer = AIOKafkaConsumer(
        *assigned,
        **options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=max(1 << 20, 2 * settings.max_record_bytes),
    )
    try:
        async with asyncio.timeout(settings.request_timeout_seconds):
            await consumer.start()
        yield consumer
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable("broker_unavailable", f"{what} cannot be read: {type(error).__name__}.") from error
    finally:
        await consumer.stop()
