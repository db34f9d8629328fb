"""Pauses integrations: every worker reads their switches from the store every few seconds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog
from pydantic import AwareDatetime

from pipeline.errors import PermanentError, TransientError, Untried
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.receipt_store import ReceiptStore
from pipeline.jobs.receipts import Receipt
from pipeline.observability import Metrics
from pipeline.storage import ObjectStore

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 5.0
"""Interval between two reads: a worker notices a pause within this time."""

PAUSED: Final = "integration_paused"
_NUMBER: Final = re.compile(r"([0-9]{8})\.json")
_INTEGRATION: Final = re.compile(r"[a-z0-9-]+")


class Switch(Receipt):
    """``switches/<integration>/<seq>.json``. The highest number is valid. If two operators create one, the first wins.

    Attributes:
        until: When a pause ends by itself.
        command: Id of the command that created it.
    """

    integration: str
    seq: int
    paused: bool
    until: AwareDatetime
    reason: str
    actor: str
    command: str
    at: AwareDatetime


class IntegrationPaused(Untried):
    """An operator paused the integration: its jobs are parked untried until the pause ends."""

    def __init__(self, switch: Switch, left: float) -> None:
        super().__init__(
            "integration_paused",
            f"{switch.integration} is paused until {switch.until:%Y-%m-%d %H:%M:%S} UTC by {switch.actor}: "
            f"{switch.reason}. To end it earlier: pipeline integration resume {switch.integration}.",
            retry_after=left,
        )


class SwitchTaken(PermanentError):
    """Another operator changed the switch at the same moment."""


class Switches(ReceiptStore):
    """The valid switch of each integration. An unavailable store keeps the last known state.

    Args:
        objects: The store.
        clock: Returns the time, in UTC.
        metrics: Shows which integrations are paused; None for commands.
    """

    def __init__(self, objects: ObjectStore, clock: Callable[[], datetime], metrics: Metrics | None = None) -> None:
        super().__init__(objects)
        self._clock = clock
        self._metrics = metrics
        self._valid: dict[str, Switch] = {}
        self._shown: set[str] = set()
        self._looked = False

    async def run(self) -> None:
        """Read the switches every few seconds until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(LOOK_SECONDS)

    async def poll(self) -> None:
        """Read the switches that changed."""
        try:
            for name in await self.objects.folders("switches/"):
                if _INTEGRATION.fullmatch(name):
                    await self.valid(name)
            self._looked = True
        except TransientError as error:
            log.warning("switches_unread", code=error.code, message=error.message)
        self._show()

    async def valid(self, integration: str) -> Switch | None:
        """Return the valid switch of an integration, or None if it was never paused.

        It ignores damaged switches and foreign objects.
        """
        for seq in reversed(await self._numbers(integration)):
            known = self._valid.get(integration)
            if known is not None and seq == known.seq:
                return known
            try:
                self._valid[integration] = await self._get(_key(integration, seq), Switch)
            except JobDamaged:
                continue
            return self._valid[integration]
        return None

    async def ensure_running(self, integration: str) -> None:
        """Check that the integration is not paused.

        Raises:
            IntegrationPaused: It is paused, according to the store. So a resumed job is not parked again.
        """
        if not self._looked:
            await self.poll()
        if self._left(self._valid.get(integration)) <= 0:
            return
        try:
            switch = await self.valid(integration)
        except TransientError:
            switch = self._valid[integration]
        left = self._left(switch)
        if switch is not None and left > 0:
            raise IntegrationPaused(switch, left)
        self._show()

    async def turn(
        self, integration: str, *, paused: bool, until: datetime, reason: str, actor: str, command: str
    ) -> Switch:
        """Pause or resume an integration; return the valid switch. Safe to repeat for one command.

        Raises:
            SwitchTaken: Another operator changed the switch at the same moment.
        """
        last = await self.valid(integration)
        if last is not None and last.command == command:
            return last
        wanted = Switch(
            integration=integration,
            seq=max(await self._numbers(integration), default=0) + 1,
            paused=paused,
            until=until,
            reason=reason,
            actor=actor,
            command=command,
            at=self._clock(),
        )
        _, existing = await self._create(_key(integration, wanted.seq), wanted)
        if existing.command != command:
            raise SwitchTaken(
                "switch_taken", f"{existing.actor} changed the switch of {integration} just now: {existing.reason}"
            )
        self._valid[integration] = existing
        return existing

    async def _numbers(self, integration: str) -> list[int]:
        """Return the numbers of an integration's switches, ascending. Objects with other names are foreign."""
        prefix = f"switches/{integration}/"
        names = [info.key.removeprefix(prefix) async for info in self.objects.list(prefix)]
        return [int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))]

    def _left(self, switch: Switch | None) -> float:
        """Return how many seconds of a pause are left."""
        if switch is None or not switch.paused:
            return 0.0
        return (switch.until - self._clock()).total_seconds()

    def _show(self) -> None:
        for name, switch in self._valid.items():
            paused = self._left(switch) > 0
            if self._metrics is not None:
                self._metrics.integration_paused.labels(name).set(paused)
            if paused != (name in self._shown):
                log.warning("integration_switched", integration=name, paused=paused, reason=switch.reason)
                (self._shown.add if paused else self._shown.discard)(name)


def _key(integration: str, seq: int) -> str:
    return f"switches/{integration}/{seq:08d}.json"
