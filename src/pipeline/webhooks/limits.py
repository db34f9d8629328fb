"""Limits for requests in work, for all sources together and for each one, so that no source blocks another.

The path of a request names its source, but anybody may send to a path. So the clients of a source form two groups, each
with its own share: known clients, which have sent an authentic request, and all others. An attacker competes only with
other unknown clients, and no single address gets the whole share of that group. Only authentic requests use up the rate
of a source.

A request is not verified until its body has arrived. While it waits, it can lose its capacity to another request: at
once to an authentic request of its source, and after a short time to a newer request of its own client, or else of its
own group.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import IPv6Network
from itertools import chain
from typing import Final

from pipeline.kafka import MAX_SENDS_IN_FLIGHT
from pipeline.observability import Metrics
from pipeline.shares import Shares
from pipeline.webhooks.answers import Answer, Problem, temporary
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.webhook import Webhook

_MAX_KNOWN: Final = 4096
"""Maximum number of known clients of a source. The least recently seen client is forgotten first."""

_BURST_SECONDS: Final = 2.0
"""A quiet source may send the requests of this many seconds at once."""

_PATIENCE_SECONDS: Final = 0.2
"""Seconds before a request that waits for its body gives way to another waiting request. Nearly all bodies arrive
earlier. To keep all slots younger than this, an attacker would need thousands of connections per second."""

_ROUNDING: Final = 1e-6
"""Tolerance for rounding errors in sums of seconds."""


class SourceLimits:
    """Admits requests while their source has room.

    A single source needs to leave no room for others: its known clients may use the whole limits, and its rate is
    limited only if its own table says so.

    Args:
        webhooks: The webhooks of all sources.
        settings: The limits.
        metrics: Shows the amounts that each source holds.
        monotonic: Seconds of a monotonic clock, for the rates.
        max_sends: Maximum number of records that the publisher sends at the same time.
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
        self._rates: Final = {one.path: _Rate(one.requests_per_second or default, monotonic) for one in webhooks}
        self._known: Final = {one.path: _KnownClients() for one in webhooks}
        self._monotonic = monotonic
        self._waiting: dict[WaitingRequest, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        for name in {one.integration for one in webhooks}:
            paths = [one.path for one in webhooks if one.integration == name]
            metrics.ingress_in_flight.labels(name).set_function(partial(self.requests.held, paths))
            metrics.ingress_bytes_in_flight.labels(name).set_function(partial(self.body_bytes.held, paths))

    async def idle(self) -> None:
        """Wait until no request is in work. The caller sets the timeout."""
        await self._idle.wait()

    @contextmanager
    def waiting(self, webhook: Webhook, client: str, stop: Callable[[], None]) -> Iterator[WaitingRequest]:
        """Hold a slot, and room for the body, for a request whose body has not arrived yet.

        Args:
            webhook: The source.
            client: Address of the sender.
            stop: Ends the wait for the body; called if the request gives way to another one.

        Raises:
            Problem: 503, there is no room, or the source has used up its rate.
        """
        self._rates[webhook.path].check()
        request = WaitingRequest(self, self._sender(webhook, client), stop)
        self._waiting[request] = self._monotonic()
        try:
            yield request
        finally:
            self.end(request)

    @contextmanager
    def publishing(self, webhook: Webhook, client: str, size: int) -> Iterator[None]:
        """Hold the slot and the bytes of an authentic request while the block publishes it.

        The request uses up the rate of its source, and makes its client a known one.

        Args:
            webhook: The source.
            client: Address of the sender.
            size: Size of the body.

        Raises:
            Problem: 503, there is no room, or the source has used up its rate.
        """
        rate = self._rates[webhook.path]
        rate.check()
        self._known[webhook.path].add(_network(client))
        request = _Held(self, self._sender(webhook, client), authentic=True)
        try:
            request.take(self.body_bytes, size)
            request.take(self.sends, 1)
            rate.use()
            yield
        finally:
            self.end(request)

    def has_room(self, webhook: Webhook, size: int) -> bool:
        """Return whether :meth:`publishing` would find room without making another request give way.

        It takes nothing. Call :meth:`take` before the next await to take the room.
        """
        group = (webhook.path, True)
        return (
            self._rates[webhook.path].wait <= 0
            and self.requests.fits(group, 1)
            and self.body_bytes.fits(group, size)
            and self.sends.fits(group, 1)
        )

    def take(self, webhook: Webhook, client: str, size: int) -> None:
        """Take the same as :meth:`publishing` for an authentic request, directly after :meth:`has_room` returned True.

        The caller must call :meth:`give_back` at the end.
        """
        self._rates[webhook.path].use()
        self._known[webhook.path].add(_network(client))
        self._count(webhook, 1, size)
        self.begin()

    def give_back(self, webhook: Webhook, size: int) -> None:
        """Give back the amounts of :meth:`take`."""
        self._count(webhook, -1, -size)
        if self.requests.unused:
            self._idle.set()

    def _count(self, webhook: Webhook, number: int, size: int) -> None:
        group = (webhook.path, True)
        self.requests.shares.take(group, number)
        self.body_bytes.shares.take(group, size)
        self.sends.shares.take(group, number)

    def make_room(self, limit: _Limit, amount: int, request: _Held) -> None:
        """Make room for an amount of a limit; if necessary, make requests that wait for their bodies give way.

        Raises:
            Problem: 503, there is no room.
        """
        while (refusal := limit.refusal(request.sender, amount)) is not None:
            longest = None if limit is self.sends else self._longest_waiting(request)
            if longest is None:
                raise refusal
            longest.give_way()
            self.end(longest)

    def end(self, request: _Held) -> None:
        """Give back everything that a request holds."""
        if isinstance(request, WaitingRequest):
            self._waiting.pop(request, None)
        request.give_back()
        if self.requests.unused:
            self._idle.set()

    def begin(self) -> None:
        """Count a request as in work."""
        self._idle.clear()

    def _sender(self, webhook: Webhook, client: str) -> _Sender:
        address = _network(client)
        return _Sender(webhook.path, address, address in self._known[webhook.path])

    def _longest_waiting(self, request: _Held) -> WaitingRequest | None:
        """Return the request that should give way to this one, which is either authentic or waiting itself."""
        sender, authentic = request.sender, request.authentic
        latest = self._monotonic() - (0 if authentic else _PATIENCE_SECONDS)
        patient = [one for one, since in self._waiting.items() if since <= latest and one is not request]
        same_client = (one for one in patient if one.sender == sender)
        same_group = (one for one in patient if one.sender.group == sender.group)
        same_source = (one for one in patient if authentic and one.sender.path == sender.path)
        return next(chain(same_client, same_group, same_source), None)


class _Held:
    """The amounts that one request holds of the limits. The constructor takes the slot.

    Raises:
        Problem: 503, there is no free slot.
    """

    def __init__(self, limits: SourceLimits, sender: _Sender, *, authentic: bool = False) -> None:
        self.sender: Final = sender
        self.authentic: Final = authentic
        self._limits = limits
        self._held: Counter[_Limit] = Counter()
        self.take(limits.requests, 1)
        limits.begin()

    def take(self, limit: _Limit, amount: int) -> None:
        """Take an amount; raise Problem if there is no room."""
        self._limits.make_room(limit, amount, self)
        limit.count(self.sender, amount)
        self._held[limit] += amount

    def give_back(self) -> None:
        """Give everything back; a second call does nothing."""
        for limit, amount in self._held.items():
            limit.count(self.sender, -amount)
        self._held.clear()


class WaitingRequest(_Held):
    """A request that waits for its body. Made by :meth:`SourceLimits.waiting`."""

    def __init__(self, limits: SourceLimits, sender: _Sender, stop: Callable[[], None]) -> None:
        """See :meth:`SourceLimits.waiting`."""
        super().__init__(limits, sender)
        self._stop = stop
        self.gave_way = False
        """Whether it lost its slot to another request."""

    def received(self, size: int) -> None:
        """Take room for newly arrived bytes of the body.

        Raises:
            Problem: 503, there is no room for them, or the request gave way to another one.
        """
        if self.gave_way:
            raise gave_way()
        self.take(self._limits.body_bytes, size)

    def give_way(self) -> None:
        """End the wait for the body."""
        self.gave_way = True
        self._stop()


def gave_way() -> Problem:
    """Return the answer to a request that lost its slot to another one."""
    return temporary(Answer.SOURCE_OVERLOADED, "gave_way")


@dataclass(frozen=True, slots=True)
class _Sender:
    """The source of a request, by its path, and the client."""

    path: str
    address: str
    known: bool

    @property
    def group(self) -> tuple[str, bool]:
        return self.path, self.known


class _Limit:
    """One limit, shared by the groups of clients of all sources.

    Args:
        name: Reason of a refusal if there is no room for anybody.
        source: Reason of a refusal if there is no room for the source's known clients.
        total: The limit.
        alone: Whether there is a single source.
    """

    def __init__(self, name: str, source: str, total: int, *, alone: bool) -> None:
        self._name = name
        self._source = source
        self._alone = alone
        self.shares: Final = Shares(total)
        self._unknown: Counter[_Sender] = Counter()

    @property
    def unused(self) -> bool:
        return not self.shares.used

    def held(self, paths: Sequence[str]) -> int:
        """Return how much the sources with these paths hold."""
        return sum(self.shares.held((path, known)) for path in paths for known in (True, False))

    def fits(self, group: tuple[str, bool], amount: int) -> bool:
        """Return whether a group of known clients may take an amount now."""
        return amount <= self.shares.free and amount <= self._room_of_known(group)

    def refusal(self, sender: _Sender, amount: int) -> Problem | None:
        """Return the refusal if the sender may not take an amount now; None if it may."""
        if amount > self.shares.free:
            return temporary(Answer.OVERLOADED, self._name)
        if amount > self._room(sender):
            reason = self._source if sender.known else f"unknown_clients_{self._name}"
            return temporary(Answer.SOURCE_OVERLOADED, reason)
        return None

    def _room(self, sender: _Sender) -> int:
        if sender.known:
            return self._room_of_known(sender.group)
        return self.shares.room(sender.group) - self._unknown[sender]

    def _room_of_known(self, group: tuple[str, bool]) -> int:
        """Return how much a group of known clients may take now; a single source may take everything that is free."""
        return self.shares.free if self._alone else self.shares.room(group)

    def count(self, sender: _Sender, amount: int) -> None:
        """Count an amount as held by a sender; a negative amount as given back."""
        self.shares.take(sender.group, amount)
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

    @property
    def wait(self) -> float:
        """Seconds until the next request is allowed; 0 if it is allowed now."""
        if not self._seconds_each:
            return 0.0
        wait = self._paid_until + self._seconds_each - self._monotonic() - _BURST_SECONDS
        return wait if wait > _ROUNDING else 0.0

    def check(self) -> None:
        """Raise Problem if the rate is used up. Does not count a request."""
        wait = self.wait
        if wait:
            raise temporary(Answer.SOURCE_OVERLOADED, "source_rate", wait)

    def use(self) -> None:
        """Count one request; raise Problem if the rate is used up."""
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
    """Return the client's address, or for IPv6 its network, since one client has many addresses."""
    return str(IPv6Network((client, 64), strict=False)) if ":" in client else client
