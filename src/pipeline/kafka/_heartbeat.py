"""When the group coordinator last heard of this member. aiokafka knows, but tells nobody.

tests/unit/kafka/test_heartbeat.py fails when what this module reads inside aiokafka's coordinator changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from aiokafka.errors import RebalanceInProgressError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest

from pipeline.errors import FatalError

_NEEDED: Final = ("_send_req", "member_id", "generation")


class Pulse:
    """Watches the coordinator's requests.

    A heartbeat counts from the moment it was *sent*: the coordinator's clock for the session starts no earlier. The
    clock goes on while the process is frozen (SIGSTOP, a paused container).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._coordinator: Any = None

    def attach(self, coordinator: Any) -> None:
        """Start to watch.

        Raises:
            FatalError: This version of aiokafka is built otherwise.
        """
        missing = [name for name in _NEEDED if not hasattr(coordinator, name)]
        if missing:
            raise FatalError("aiokafka_changed", f"aiokafka's group coordinator has no {', '.join(missing)} any more")
        send = coordinator._send_req  # noqa: SLF001 - the one seam that sees every answer

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
        """Seconds since the last request that the coordinator answered as to a member; infinite before the first."""
        return float("inf") if self._last is None else self._clock() - self._last

    @property
    def membership(self) -> tuple[str, int] | None:
        """Member id and generation, or None while the coordinator does not know this member."""
        known = self._coordinator is not None and self._coordinator.generation > 0
        return (self._coordinator.member_id, self._coordinator.generation) if known else None


def _recognised(request: Any, answer: Any) -> bool:
    if isinstance(request, HeartbeatRequest):
        # a rebalance under way does not end the session
        return answer.error_code in (0, RebalanceInProgressError.errno)
    return isinstance(request, SyncGroupRequest) and answer.error_code == 0
