"""Limits of the requests in work: of all sources together and of each one, so that no source holds up another.

The path of a request names its source, but anyone may send to a path. So the clients of a source form two groups with
shares of their own: known clients, which sent it an authentic request before, and all others. An attacker competes with
other unknown clients, and no address takes the whole share of that group. Only authentic requests use up the rate of a
source.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Final

from pipeline.kafka import MAX_SENDS_IN_FLIGHT
from pipeline.observability import Metrics
from pipeline.shares import Shares
from pipeline.webhooks.answers import Answer, temporary
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.webhook import Webhook

_MAX_KNOWN: Final = 4096
"""Clients remembered of one source; the one that was not seen for the longest time is forgotten first."""

_BURST_SECONDS: Final = 2.0
"""A source that was quiet may send the requests of this time at once."""

_ROUNDING: Final = 1e-6
"""Sums of fractions of seconds are off by less."""


class SourceLimits:
    """Admits a request while its source has room.

    With a single source no other needs room: its known clients may use the limits whole, and its rate is limited only
    if its own table says so.

    Args:
        webhooks: All sources.
        settings: The limits.
        metrics: Shows what each source holds.
        monotonic: Seconds of a clock that never goes back, for the rates.
        max_sends: How many records the publisher sends at the same time.
    """

    def __init__(
        self,
        webhooks: Sequence[Webhook],
        settings: IngressSettings,
        metrics: Metrics,
        monotonic: Callable[[], float],
        max_sends: int = MAX_SENDS_IN_FLIGHT,
    ) -> None:
        alone = len(webhooks) == 1
        default = None if alone else settings.source_requests_per_second
        self.requests: Final = _Limit(
            "requests_in_flight", "source_requests_in_flight", settings.max_in_flight, alone=alone
        )
        self.body_bytes: Final = _Limit(
            "bytes_in_flight", "source_bytes_in_flight", settings.max_in_flight_bytes, alone=alone
        )
        self.sends: Final = _Limit("sends_in_flight", "source_sends_in_flight", max_sends, alone=alone)
        self.rates: Final = {one.path: _Rate(one.requests_per_second or default, monotonic) for one in webhooks}
        self.known: Final = {one.path: _KnownClients() for one in webhooks}
        self.metrics: Final = metrics
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Return when no request is in work. The caller sets the timeout."""
        await self._idle.wait()

    @contextmanager
    def admitted(self, webhook: Webhook, client: str, authentic: int | None = None) -> Iterator[AdmittedRequest]:
        """Hold a request's slot, and the room that its body takes, while the block runs.

        Args:
            webhook: The source.
            client: Address of the sender.
            authentic: Size of the body, if it has arrived and the request is verified; None: it is still to come.

        Raises:
            Problem: 503, there is no room for another request, or the source has used up its rate.
        """
        self.rates[webhook.path].check()
        address, known = _network(client), self.known[webhook.path]
        if authentic is not None:
            known.add(address)
        request = AdmittedRequest(self, webhook, _Sender(webhook.path, address, address in known))
        self._idle.clear()
        try:
            if authentic is not None:
                request.received(authentic)
                self.rates[webhook.path].use()
            yield request
        finally:
            request.end()
            if self.requests.unused:
                self._idle.set()


class AdmittedRequest:
    """What one request holds of the limits. Made by :meth:`SourceLimits.admitted`."""

    def __init__(self, limits: SourceLimits, webhook: Webhook, sender: _Sender) -> None:
        """Take a slot.

        Raises:
            Problem: 503, there is none.
        """
        limits.requests.take(sender, 1)
        self._limits = limits
        self._sender = sender
        self._size = 0
        self._in_flight = limits.metrics.ingress_in_flight.labels(webhook.integration)
        self._bytes_in_flight = limits.metrics.ingress_bytes_in_flight.labels(webhook.integration)
        self._in_flight.inc()

    def received(self, size: int) -> None:
        """Take room for bytes of the body, which have just arrived.

        Raises:
            Problem: 503, there is no room for them.
        """
        self._limits.body_bytes.take(self._sender, size)
        self._size += size
        self._bytes_in_flight.inc(size)

    def verified(self) -> None:
        """Count the request, which is authentic, against the rate of its source; its client is known from now on.

        Raises:
            Problem: 503, the source has used up its rate.
        """
        limits, sender = self._limits, self._sender
        limits.known[sender.path].add(sender.address)
        if not sender.known:
            self._sender = replace(sender, known=True)
            for limit, amount in ((limits.requests, 1), (limits.body_bytes, self._size)):
                limit.move(sender, self._sender, amount)
        limits.rates[sender.path].use()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Hold one of the sends to the broker while the block runs; the request must be verified.

        Raises:
            Problem: 503, the source has too many under way.
        """
        self._limits.sends.take(self._sender, 1)
        try:
            yield
        finally:
            self._limits.sends.give(self._sender, 1)

    def end(self) -> None:
        """Give everything back."""
        self._limits.requests.give(self._sender, 1)
        self._limits.body_bytes.give(self._sender, self._size)
        self._in_flight.dec()
        self._bytes_in_flight.dec(self._size)


@dataclass(frozen=True, slots=True)
class _Sender:
    """Whom a request counts for: the source whose path it names, and its client."""

    path: str
    address: str
    known: bool

    @property
    def group(self) -> tuple[str, bool]:
        return self.path, self.known


class _Limit:
    """One limit, shared by the groups of clients of all sources.

    Args:
        name: Reason of a refusal if nobody finds room.
        source: Reason of a refusal if the source's known clients find none.
        total: The limit.
        alone: Whether there is a single source.
    """

    def __init__(self, name: str, source: str, total: int, *, alone: bool) -> None:
        self._name = name
        self._source = source
        self._alone = alone
        self._shares = Shares(total)
        self._unknown: Counter[_Sender] = Counter()

    @property
    def unused(self) -> bool:
        return not self._shares.used

    def take(self, sender: _Sender, amount: int) -> None:
        if amount > self._shares.free:
            raise temporary(Answer.OVERLOADED, self._name)
        if amount > self._room(sender):
            reason = self._source if sender.known else f"unknown_clients_{self._name}"
            raise temporary(Answer.SOURCE_OVERLOADED, reason)
        self._count(sender, amount)

    def give(self, sender: _Sender, amount: int) -> None:
        self._count(sender, -amount)

    def move(self, sender: _Sender, to: _Sender, amount: int) -> None:
        self._count(sender, -amount)
        self._count(to, amount)

    def _room(self, sender: _Sender) -> int:
        if sender.known and self._alone:
            return self._shares.free
        room = self._shares.room(sender.group)
        return room if sender.known else room - self._unknown[sender]

    def _count(self, sender: _Sender, amount: int) -> None:
        self._shares.take(sender.group, amount)
        if not sender.known:
            self._unknown[sender] += amount
            if not self._unknown[sender]:
                del self._unknown[sender]


class _Rate:
    """Requests per second of a source (a token bucket); None: unlimited."""

    def __init__(self, per_second: float | None, monotonic: Callable[[], float]) -> None:
        self._seconds_each = 1 / per_second if per_second else 0.0
        self._monotonic = monotonic
        self._paid_until = monotonic()

    def check(self) -> None:
        """Raise if the rate is used up; count nothing."""
        wait = self._paid_until + self._seconds_each - self._monotonic() - _BURST_SECONDS
        if self._seconds_each and wait > _ROUNDING:
            raise temporary(Answer.SOURCE_OVERLOADED, "source_rate", wait)

    def use(self) -> None:
        """Count one request, or raise if the rate is used up."""
        self.check()
        self._paid_until = max(self._paid_until, self._monotonic()) + self._seconds_each


class _KnownClients:
    """The addresses of clients that sent an authentic request. Memory is bounded."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, address: str) -> bool:
        return address in self._addresses

    def add(self, address: str) -> None:
        self._addresses[address] = None
        self._addresses.move_to_end(address)
        if len(self._addresses) > _MAX_KNOWN:
            self._addresses.popitem(last=False)


@lru_cache(maxsize=1024)
def _network(client: str) -> str:
    """Return the client's address; of IPv6 the network, since one client has many addresses."""
    return str(IPv6Network((client, 64), strict=False)) if ":" in client else client
