"""Circuit breakers: while a host keeps failing, one call every 30 s probes it, and all others are refused."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal, Self

from pipeline.errors import TransientError, Untried
from pipeline.observability import Metrics, get_logger

log = get_logger(__name__)

CircuitPurpose = Literal["input", "result", "callback", "cards"]
"""The purpose of a call. A host that fails for one purpose may work for another."""

_FAILURES_TO_OPEN: Final = 5
"""Failures in a row that open a circuit. More would take too long if each waits for a timeout."""
_PROBE_SECONDS: Final = 30.0
"""Pause between two probes of an open circuit: short against any deadline, and hardly a load for the host."""
_SPREAD: Final = 0.25
"""Refused calls are spread over this share of the time for which the host has failed."""
_MAX_SPREAD_SECONDS: Final = 300.0
_MAX_HOSTS: Final = 1000
"""Maximum number of failing hosts remembered per integration and purpose; beyond it, the oldest is forgotten."""


class HostUnavailable(TransientError):
    """The host gave no answer, or answered that it is unavailable. Circuit breakers count this error."""


class CircuitOpen(Untried):
    """The call was not made, because the host's last calls failed."""


class Circuits:
    """The circuit breakers of a process.

    Args:
        metrics: Counts open circuits.
        clock: Returns monotonic seconds.
        jitter: Returns a number from 0 to 1, to spread the repeated calls.
        probe_seconds: Pause between two probes of an open circuit.
        failures_to_open: Failures in a row that open a circuit.

    Attributes:
        closed: The integration and purpose of each circuit that was closed; a service resumes the calls that wait.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        probe_seconds: float = _PROBE_SECONDS,
        failures_to_open: float = _FAILURES_TO_OPEN,
    ) -> None:
        self.metrics: Final = metrics
        self.clock: Final = clock
        self.jitter: Final = jitter
        self.probe_seconds: Final = probe_seconds
        self.closed: Final[asyncio.Queue[tuple[str, CircuitPurpose]]] = asyncio.Queue(_MAX_HOSTS)
        self.failures_to_open: Final = failures_to_open
        self._circuits: dict[tuple[str, CircuitPurpose], Circuit] = {}

    def of(self, integration: str, purpose: CircuitPurpose) -> Circuit:
        """Return the circuit breaker of an integration for one purpose."""
        key = integration, purpose
        if key not in self._circuits:
            self._circuits[key] = Circuit(self, integration, purpose)
        return self._circuits[key]


class _Host:
    """A host that failed lately.

    Attributes:
        failures: Number of failed calls in a row.
        since: When the first of them ended, for people.
        began: The same, by the clock of the circuits.
        error: The last failure.
        probe_at: When the next probe is due; None while the circuit is closed.
        probing: Whether a probe is under way.
        settled: Set when no probe is under way.
    """

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.since = datetime.now(UTC)
        self.began = now
        self.error: TransientError | None = None
        self.probe_at: float | None = None
        self.probing = False
        self.settled = asyncio.Event()


class Circuit:
    """The circuit breaker of one integration and purpose, with a state for each host.

    Five failed calls in a row open the circuit of a host. Then one call every 30 s is a probe, and every other call is
    refused. A call that succeeds closes the circuit, whether it is a probe or began before the circuit opened.
    """

    def __init__(self, circuits: Circuits, integration: str, purpose: CircuitPurpose) -> None:
        self._circuits = circuits
        self._integration = integration
        self._purpose = purpose
        self._hosts: dict[str, _Host] = {}
        self._show()

    @property
    def quiet(self) -> bool:
        """Whether no host has failed since its last success."""
        return not self._hosts

    @property
    def failing(self) -> Mapping[str, object]:
        """Hosts that have failed since their last success. This is a live view: get it once and check it often."""
        return self._hosts

    def call(self, host: str) -> Call:
        """Return a call that may be made now. Use it as a context manager, or close it.

        Raises:
            CircuitOpen: The circuit is open. The message is the last failure of the host.
        """
        found = self._hosts.get(host)
        if found is None or found.probe_at is None:
            return Call(self, host, None)
        now = self._circuits.clock()
        if found.probing or now < found.probe_at:
            raise self._refusal(found, now)
        found.probing = True
        found.settled.clear()
        return Call(self, host, found)

    async def call_after_probe(self, host: str, turn: Callable[[], Awaitable[object]] | None = None) -> Call:
        """Return a call like :meth:`call`, but while a probe is under way, wait for its result.

        Args:
            host: The host.
            turn: Waits until the call may be made, because of a limit on the rate. Turns are not saved up: if a probe
                began meanwhile, the call waits for another one after the probe.
        """
        while True:
            while (found := self._probing(host)) is not None:
                await found.settled.wait()
            if turn is not None:
                await turn()
            if self._probing(host) is None:
                return self.call(host)

    def _probing(self, host: str) -> _Host | None:
        found = self._hosts.get(host)
        return found if found is not None and found.probing else None

    def succeeded(self, host: str) -> None:
        """Note that a call of the host succeeded."""
        found = self._hosts.pop(host, None)
        if found is None:
            return
        found.probing = False
        found.settled.set()
        if found.probe_at is not None:
            self._show()
            log.info("circuit_closed", integration=self._integration, purpose=self._purpose, host=host)
            if not self._circuits.closed.full():
                self._circuits.closed.put_nowait((self._integration, self._purpose))

    def failed(self, host: str, error: TransientError) -> None:
        """Note that a call of the host failed."""
        found = self._hosts.get(host)
        if found is None:
            found = self._hosts[host] = _Host(self._circuits.clock())
        found.failures += 1
        found.error = error
        if found.probe_at is None and found.failures >= self._circuits.failures_to_open:
            found.probe_at = self._circuits.clock() + self._circuits.probe_seconds
            self._show()
            log.warning(
                "circuit_opened",
                integration=self._integration,
                purpose=self._purpose,
                host=host,
                code=error.code,
                message=error.message,
            )
        if len(self._hosts) > _MAX_HOSTS:
            del self._hosts[next(iter(self._hosts))]
            self._show()

    def end_probe(self, host: _Host, *, failed: bool) -> None:
        """Note that a probe ended without success; another may begin at once, or in 30 s if it failed."""
        host.probing = False
        host.settled.set()
        if failed:
            host.probe_at = self._circuits.clock() + self._circuits.probe_seconds

    def _refusal(self, found: _Host, now: float) -> CircuitOpen:
        circuits = self._circuits
        # during a long outage, the waiting jobs must not all return every half minute
        spread = min(max(circuits.probe_seconds, _SPREAD * (now - found.began)), _MAX_SPREAD_SECONDS)
        pause = max(0.0, (found.probe_at or now) - now) + circuits.jitter() * spread
        cause = found.error.message if found.error else ""
        return CircuitOpen(
            "circuit_open",
            f"{cause} ({found.failures} tries in a row failed since {found.since:%Y-%m-%d %H:%M:%S} UTC, so this call "
            "was not tried)",
            retry_after=pause,
        )

    def _show(self) -> None:
        if self._circuits.metrics is not None:
            count = sum(one.probe_at is not None for one in self._hosts.values())
            self._circuits.metrics.circuit_open.labels(self._integration, self._purpose).set(count)


class Call:
    """One call of a host. As a context manager, it derives the result of the call from the end of its block.

    HostUnavailable means failure; no exception means success. Any other exception says nothing about the host.
    """

    def __init__(self, circuit: Circuit, host: str, probe: _Host | None) -> None:
        self._circuit = circuit
        self._host = host
        self._probe = probe

    def succeeded(self) -> None:
        """Note that the host answered."""
        self._probe = None
        self._circuit.succeeded(self._host)

    def failed(self, error: TransientError) -> None:
        """Note that the host failed."""
        probe, self._probe = self._probe, None
        if probe is not None:
            self._circuit.end_probe(probe, failed=True)
        self._circuit.failed(self._host, error)

    def note(self, error: TransientError, *, answers: tuple[type[TransientError], ...] = ()) -> None:
        """Note an error: HostUnavailable is a failure, one of ``answers`` a success; any other says nothing."""
        if isinstance(error, HostUnavailable):
            self.failed(error)
        elif isinstance(error, answers):
            self.succeeded()

    def close(self) -> None:
        """Note that the call ended; without a result, it says nothing about the host."""
        probe, self._probe = self._probe, None
        if probe is not None:
            self._circuit.end_probe(probe, failed=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.succeeded()
        elif isinstance(error, HostUnavailable):
            self.failed(error)
        else:
            self.close()


NO_CIRCUIT: Final = Circuits(failures_to_open=math.inf).of("", "cards")
"""A circuit that never opens, for work on local files."""
