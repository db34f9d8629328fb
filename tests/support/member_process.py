"""A group member as a process of its own, for tests that kill or freeze it.

``python -m support.member_process SETTINGS``: prints ``start VALUE`` when it begins with a record, waits as long as the
record's value says (``KEY:seconds``), asks its lease, prints ``effect VALUE``.
"""

from __future__ import annotations

import asyncio
import sys

from support.members import keyed_consumer

from pipeline.contracts import Record
from pipeline.kafka import ConsumerSettings, KafkaPublisher, KafkaSettings
from pipeline.kafka.protocols import Lease


class _Waiting:
    async def arrive(self, record: Record) -> None:
        pass

    async def handle(self, record: Record, lease: Lease) -> None:
        value = record.value.decode()
        _say("start", value)
        # in short steps, as real work awaits often: a thawed process must not be saved by chance
        for _ in range(round(float(value.partition(":")[2]) * 20)):
            await asyncio.sleep(0.05)
        await lease.ensure()
        _say("effect", value)


def _say(word: str, value: str) -> None:
    sys.stdout.write(f"{word} {value}\n")
    sys.stdout.flush()


async def main() -> None:
    kafka = KafkaSettings.model_validate_json(sys.argv[1])
    settings = ConsumerSettings.model_validate_json(sys.argv[2])
    async with KafkaPublisher(kafka) as publisher:
        await keyed_consumer(_Waiting(), kafka, settings, publisher).run()


if __name__ == "__main__":
    asyncio.run(main())
