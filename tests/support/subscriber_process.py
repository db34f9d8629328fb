"""A subscriber as a process of its own, for tests that kill it.

``python -m support.subscriber_process KAFKA GROUP TOPIC SETTINGS``: prints ``handled PARTITION OFFSET ID`` when it has
handled an event; takes a hundredth of a second for each, so that it can be killed in the middle.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.paths import SUPPORT

from pipeline.subscriber import Event, KafkaSettings, Subscriber, SubscriberSettings


async def main() -> None:
    kafka, group, topic, settings = sys.argv[1:]
    subscriber = Subscriber(
        kafka=KafkaSettings.model_validate_json(kafka),
        group=group,
        topics=[topic],
        settings=SubscriberSettings.model_validate_json(settings),
    )

    @subscriber.on_any
    async def handle(event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        sys.stdout.write(f"handled {event.partition} {event.offset} {event.id}\n")
        sys.stdout.flush()

    await subscriber.run()


class SubscriberProcess:
    """What a subscriber in a process of its own has said so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self._stream = process.stdout
        os.set_blocking(self._stream.fileno(), False)
        self._text = b""

    def handled(self) -> list[tuple[int, int, str]]:
        """Partition, offset and id of what it handled, in order."""
        if not self._stream.closed:
            self._text += self._stream.read() or b""
        whole, _, _ = self._text.rpartition(b"\n")
        said = (line.split() for line in whole.decode().splitlines() if line.startswith("handled "))
        return [(int(partition), int(offset), ident) for _, partition, offset, ident in said]


@contextmanager
def subscriber_process(
    kafka: KafkaSettings, group: str, topic: str, settings: SubscriberSettings
) -> Iterator[SubscriberProcess]:
    """Run one; kill it at the end if it still runs."""
    tests = SUPPORT.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")])}
    arguments = [kafka.model_dump_json(), group, topic, settings.model_dump_json()]
    command = [sys.executable, "-m", "support.subscriber_process", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            yield SubscriberProcess(process)
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(main())
