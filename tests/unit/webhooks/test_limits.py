"""Limits per source: what one sender, or an attacker on its path, does to the others."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.contracts import OutgoingRecord
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics
from pipeline.webhooks.answers import Problem
from pipeline.webhooks.limits import SourceLimits, WaitingRequest
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.sources import SchemeVerifier
from pipeline.webhooks.testing import SECRET, Serving, ecs_webhook, serving
from pipeline.webhooks.verification import HmacSpec, Secret, scheme_of
from pipeline.webhooks.webhook import Webhook

ACME, OTHER = ecs_webhook("acme"), ecs_webhook("other")
SIGNED = replace(
    ACME,
    verifier=SchemeVerifier(scheme_of(HmacSpec(scheme="hmac", header="X-Signature"), [Secret("k", SecretStr(SECRET))])),
)
"""The source acme, whose sender signs the body: its head alone does not show who sent it."""
SENDER, ATTACKER = "192.0.2.1", "198.51.100.1"


@dataclass
class World:
    """The limits under a clock that a test moves."""

    settings: IngressSettings = field(default_factory=lambda: IngressSettings(max_in_flight=30))
    webhooks: list[Any] = field(default_factory=lambda: [ACME, OTHER])
    max_sends: int = 9
    seconds: float = 0.0
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.limits = SourceLimits(self.webhooks, self.settings, self.metrics, lambda: self.seconds, self.max_sends)

    def authentic(self, webhook: Any, client: str = SENDER) -> None:
        """Handle one authentic request."""
        with self.limits.publishing(webhook, client, 0):
            pass

    def waiting(self, webhook: Any, client: str = SENDER) -> AbstractContextManager[WaitingRequest]:
        """Hold a request whose body is still to come while the block runs."""
        return self.limits.waiting(webhook, client, lambda: None)

    def publishing(self, webhook: Any, client: str = SENDER, size: int = 0) -> AbstractContextManager[None]:
        """Hold an authentic request while the block runs."""
        return self.limits.publishing(webhook, client, size)

    def reason(self, webhook: Any, client: str = SENDER, *, authentic: bool = False) -> str | None:
        """Return why a request is refused now, or None if it is admitted."""
        try:
            with self.publishing(webhook, client) if authentic else self.waiting(webhook, client):
                return None
        except Problem as problem:
            return problem.reason if problem.status == 503 and problem.headers["Retry-After"] else "not 503"

    def value(self, name: str, integration: str) -> float | None:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(f"pipeline_{name}", {"integration": integration})

    @contextmanager
    def busy(self, webhook: Any, *clients: str, authentic: bool = False) -> Iterator[int]:
        """Hold as many requests as the clients get, taking turns, while the block runs; return their number."""
        with ExitStack() as stack:
            held, admitted = 0, True
            while admitted:
                admitted = False
                for client in clients:
                    try:
                        stack.enter_context(
                            self.publishing(webhook, client) if authentic else self.waiting(webhook, client)
                        )
                    except Problem:
                        continue
                    held += 1
                    admitted = True
            yield held


async def test_one_source_leaves_room_for_another() -> None:
    """A known sender gets two thirds; the other source finds room, and all of it when the first has ended."""
    world = World()
    world.authentic(ACME)
    world.authentic(OTHER)
    with world.busy(ACME, SENDER) as held:
        assert held == 20
        assert world.reason(ACME) == "source_requests_in_flight"
        assert world.reason(OTHER) is None
        assert world.value("ingress_in_flight", "acme") == 20
    assert world.reason(ACME) is None
    assert world.value("ingress_in_flight", "acme") == 0


async def test_a_single_source_may_use_everything() -> None:
    """Nobody else needs room; then the limit of all is what refuses."""
    world = World(webhooks=[ACME])
    world.authentic(ACME)
    with world.busy(ACME, SENDER) as held:
        assert held == 30
        assert world.reason(ACME) == "requests_in_flight"


@pytest.mark.parametrize("webhooks", [[ACME], [ACME, OTHER]], ids=["single source", "two sources"])
async def test_an_attacker_on_the_path_leaves_room_for_the_sender(webhooks: list[Any]) -> None:
    """Requests that are not authentic hold no slot of a known sender, even if they come from many addresses."""
    world = World(webhooks=webhooks)
    world.authentic(ACME)
    with world.busy(ACME, *(f"198.51.100.{n}" for n in range(200))):
        assert world.reason(ACME, ATTACKER) == "unknown_clients_requests_in_flight"
        assert world.reason(ACME, SENDER) is None


async def test_an_attacker_leaves_room_for_a_sender_that_is_not_known_yet() -> None:
    """After a start no client is known: one address gets half of the slots, and another still finds some."""
    world = World()
    with world.busy(ACME, ATTACKER) as held:
        assert held == 15
        assert world.reason(ACME, SENDER) is None


async def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    """A client that owns a network gets no more room by using many addresses of it."""
    world = World()
    with world.busy(ACME, *(f"2001:db8::{n:x}" for n in range(100))) as held:
        assert held == 15
        assert world.reason(ACME, "2001:db8:0:1::1") is None


async def test_an_authentic_request_counts_for_the_known_clients_at_once() -> None:
    """The first requests of a sender have its own share; they do not hold that of unknown clients."""
    world = World(max_sends=30)
    with world.busy(ACME, SENDER, authentic=True) as held:
        assert held == 20
        assert world.reason(ACME, SENDER, authentic=True) == "source_requests_in_flight"
        assert world.reason(ACME, ATTACKER) is None


@pytest.mark.parametrize("webhooks", [[ACME], [ACME, OTHER]], ids=["single source", "two sources"])
@pytest.mark.parametrize("attackers", [(SENDER,), tuple(f"198.51.100.{n}" for n in range(200))], ids=["same", "others"])
async def test_bodies_that_are_awaited_give_way_to_authentic_requests(
    webhooks: list[Any], attackers: tuple[str, ...]
) -> None:
    """Even where the attacker has the address of the sender, as behind a proxy that is not trusted."""
    world = World(webhooks=webhooks, max_sends=30)
    world.authentic(ACME)
    with world.busy(ACME, *attackers) as waiting, world.busy(ACME, SENDER, authentic=True) as held:
        assert waiting >= 15
        assert held == 30 if len(webhooks) == 1 else held == 20
        assert world.value("ingress_in_flight", "acme") in {30, 20}


async def test_awaited_bodies_of_another_source_do_not_give_way() -> None:
    """A noisy source takes nothing from the others."""
    world = World(max_sends=30)
    with world.waiting(OTHER) as slow, world.busy(ACME, SENDER, authentic=True) as held:
        assert held == 20
        assert not slow.gave_way


async def test_a_body_that_is_awaited_for_long_gives_way_to_a_newer_one() -> None:
    """It is one of the same client, if there is any; its wait ends at once, and it holds nothing any more."""
    world = World()
    stopped: list[str] = []
    with world.limits.waiting(ACME, ATTACKER, lambda: stopped.append(ATTACKER)) as longest:
        longest.received(512)
        with world.busy(ACME, ATTACKER, SENDER):
            assert world.reason(ACME, ATTACKER) == "unknown_clients_requests_in_flight"
            world.seconds += 0.3
            with world.waiting(ACME, ATTACKER):
                assert longest.gave_way
                assert stopped == [ATTACKER]
            assert world.value("ingress_bytes_in_flight", "acme") == 0
        with pytest.raises(Problem, match="source_overloaded"):
            longest.received(1)
    assert world.value("ingress_in_flight", "acme") == 0
    assert world.limits.requests.unused


async def test_an_awaited_body_never_gives_way_to_itself() -> None:
    """A body that finds no room is refused, however long it is awaited."""
    world = World(IngressSettings(max_body_bytes=1024, max_in_flight_bytes=4096))
    with world.waiting(ACME) as alone:
        world.seconds += 60
        alone.received(3000)
        with pytest.raises(Problem) as refused:
            alone.received(500)
    assert refused.value.reason == "unknown_clients_bytes_in_flight"
    assert not alone.gave_way


async def test_bytes_are_shared_as_requests_are() -> None:
    """Bodies take room as they arrive; the source that holds two thirds is refused more, the other is not."""
    world = World(IngressSettings(max_body_bytes=1024, max_in_flight_bytes=6000))
    world.authentic(ACME)
    world.authentic(OTHER)
    with world.waiting(ACME) as one, world.waiting(OTHER) as other:
        one.received(4000)
        with pytest.raises(Problem) as refused:
            one.received(1)
        assert refused.value.reason == "source_bytes_in_flight"
        other.received(1500)
        with pytest.raises(Problem) as full:
            other.received(501)
        assert full.value.reason == "bytes_in_flight"
        assert world.value("ingress_bytes_in_flight", "acme") == 4000
    assert world.value("ingress_bytes_in_flight", "acme") == 0
    with world.publishing(ACME, size=4000):
        assert world.value("ingress_bytes_in_flight", "acme") == 4000


async def test_sends_to_the_broker_are_shared() -> None:
    """A source whose records wait for their confirmation leaves sends for the other."""
    world = World()
    with world.busy(ACME, SENDER, authentic=True) as held:
        assert held == 6
        assert world.reason(ACME, authentic=True) == "source_sends_in_flight"
        assert world.reason(OTHER, authentic=True) is None
    assert world.reason(ACME, authentic=True) is None


async def test_the_rate_of_a_source_is_its_own() -> None:
    """After a burst of two seconds, requests come through at the rate; Retry-After says when; the other is free."""
    world = World(IngressSettings(source_requests_per_second=10))
    for _ in range(20):
        world.authentic(ACME)
    assert world.reason(ACME) == "source_rate"
    assert world.reason(OTHER) is None
    world.seconds += 0.1
    world.authentic(ACME)
    assert world.reason(ACME) == "source_rate"
    world.seconds += 100
    for _ in range(20):
        world.authentic(ACME)
    assert world.reason(ACME) == "source_rate"


async def test_unauthenticated_requests_use_up_no_rate() -> None:
    """However many requests fail their verification, the sender keeps its rate."""
    world = World(IngressSettings(source_requests_per_second=1))
    for _ in range(100):
        assert world.reason(ACME, ATTACKER) is None
        assert world.reason(ACME, SENDER) is None
    world.authentic(ACME)


async def test_requests_that_arrive_together_share_the_rate() -> None:
    """What was admitted while the rate was free is refused once it has been verified."""
    world = World(IngressSettings(source_requests_per_second=1))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(world.waiting(ACME))
        world.authentic(ACME)
        world.authentic(ACME)
        assert world.reason(ACME, authentic=True) == "source_rate"


async def test_a_single_source_has_only_the_rate_of_its_table() -> None:
    """The default exists for the others; what a table says holds always."""
    unlimited = World(IngressSettings(source_requests_per_second=1), [ACME])
    for _ in range(100):
        unlimited.authentic(ACME)
    limited = World(webhooks=[replace(ACME, requests_per_second=1)])
    limited.authentic(ACME)
    limited.authentic(ACME)
    assert limited.reason(ACME) == "source_rate"


async def test_known_clients_are_bounded() -> None:
    """Memory does not grow with the number of addresses that a sender has."""
    world = World(IngressSettings(source_requests_per_second=100_000))
    for n in range(5000):
        world.authentic(ACME, f"10.0.{n // 256}.{n % 256}")
    with world.busy(ACME, "10.0.0.0") as forgotten:
        assert forgotten == 256
    with world.busy(ACME, "10.0.19.0") as known:
        assert known == 342


async def test_idle_only_when_the_last_of_several_has_ended() -> None:
    """The slots are counted, and a refused request takes none."""
    world = World(IngressSettings(max_in_flight=2), [ACME])
    world.authentic(ACME)
    with world.waiting(ACME):
        with world.publishing(ACME):
            assert world.reason(ACME) == "requests_in_flight"
        waiting = asyncio.create_task(world.limits.idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


BODY = b"""{
  "data": {"type": "x"}
}"""
"""Authentic, and not valid: its answer is 422."""


@asynccontextmanager
async def two_sources(
    publisher: MemoryPublisher | None = None, webhooks: Sequence[Webhook] = (ACME, OTHER), **settings: Any
) -> AsyncIterator[Serving]:
    """Serve acme and other behind a proxy, so that a request may come from any address."""
    options = {"port": 0, "max_in_flight": 12, "read_timeout_seconds": 30.0, "trusted_proxies": ["127.0.0.0/8"]}
    ingress = IngressSettings.model_validate(options | settings)
    async with serving(publisher or MemoryPublisher(), webhooks=webhooks, settings=ingress) as here:
        yield here


class Connection:
    """One connection of a sender."""

    def __init__(self, here: Serving, client: str, name: str, secret: str = SECRET, *, signed: bool = False) -> None:
        self._port = int(here.server.url.rpartition(":")[2])
        self._head = (
            f"POST /webhooks/ecs/{name} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            f"X-Forwarded-For: {client}\r\nX-Webhook-Secret: {secret}\r\nContent-Length: {len(BODY)}\r\n"
            f"X-Signature: {hmac.digest(SECRET.encode(), BODY, 'sha256').hex() if signed else '0' * 64}\r\n\r\n"
        ).encode()

    async def open(self, body: bytes) -> None:
        """Send the head and a part of the body."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._head + body)
        await self._writer.drain()

    async def answer(self) -> tuple[int, str | None]:
        """Return status and Retry-After."""
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        after = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Retry-After:")]
        self.close()
        return int(head.split()[1]), after[0] if after else None

    def close(self) -> None:
        """Go away."""
        self._writer.close()


async def _post(
    here: Serving, client: str, name: str, secret: str = SECRET, *, signed: bool = False
) -> tuple[int, str | None]:
    connection = Connection(here, client, name, secret, signed=signed)
    await connection.open(BODY)
    return await connection.answer()


def _answers(here: Serving, name: str) -> Counter[str]:
    """Return how many requests of a source had which status and reason."""
    found: Counter[str] = Counter()
    for metric in here.metrics.registry.collect():
        for sample in metric.samples:
            if sample.name == "pipeline_ingress_requests_total" and sample.labels["integration"] == name:
                found[f"{sample.labels['status']} {sample.labels['reason']}"] = int(sample.value)
    return found


async def test_slow_bodies_hold_up_nobody() -> None:
    """Bodies that never end take slots of their source only until others need them; the other source loses nothing."""
    async with two_sources() as here:
        assert (await _post(here, SENDER, "acme"))[0] == 422
        slow = [Connection(here, SENDER, "acme") for _ in range(12)]
        for connection in slow:
            await connection.open(BODY[:1])
        async with asyncio.timeout(10):
            while _refused(here, "acme") < 4:  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.01)
        for _ in range(5):
            assert (await _post(here, SENDER, "acme"))[0] == 422
            assert (await _post(here, SENDER, "other"))[0] == 422
        alarm = {"integration": "acme", "kind": "source_overloaded"}
        assert here.metrics.registry.get_sample_value("pipeline_ingress_alarms_total", alarm) == _refused(here, "acme")
        for connection in slow:
            connection.close()
        async with asyncio.timeout(10):
            await here.ingress.limits.idle()
        assert (await _post(here, SENDER, "acme"))[0] == 422


def _refused(here: Serving, name: str) -> int:
    answers = _answers(here, name)
    return answers["503 source_requests_in_flight"] + answers["503 gave_way"]


async def test_a_slow_attacker_starves_neither_the_sender_nor_others() -> None:
    """Bodies without a valid signature trickle in from many addresses; the sender of that very path is served."""
    async with two_sources(webhooks=[SIGNED, OTHER]) as here:
        slow = [Connection(here, f"198.51.100.{n}", "acme", signed=False) for n in range(30)]
        for connection in slow:
            await connection.open(BODY[:1])
        async with asyncio.timeout(10):
            while not _answers(here, "acme")["503 unknown_clients_requests_in_flight"]:  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.01)
        for _ in range(5):
            assert (await _post(here, SENDER, "acme", signed=True))[0] == 422
            assert (await _post(here, SENDER, "other"))[0] == 422
        for connection in slow:
            connection.close()


async def test_a_noisy_sender_is_refused_alone() -> None:
    """Above its rate it gets 503 with Retry-After, and the other source is served."""
    async with two_sources(source_requests_per_second=1) as here:
        answers = [await _post(here, SENDER, "acme") for _ in range(6)]
        assert [status for status, _ in answers][:2] == [422, 422]
        assert set(answers[3:]) <= {(503, "1"), (422, None)}
        assert _answers(here, "acme")["503 source_rate"] >= 3
        assert (await _post(here, SENDER, "other"))[0] == 422


async def test_wrong_signatures_cost_the_sender_nothing() -> None:
    """A flood with a wrong secret is 401 each time, and uses up nothing of the rate."""
    async with two_sources(source_requests_per_second=1) as here:
        for _ in range(20):
            assert (await _post(here, ATTACKER, "acme", "wrong"))[0] == 401
        assert (await _post(here, SENDER, "acme"))[0] == 422


async def test_a_source_whose_records_hang_holds_up_nobody_else() -> None:
    """Records of one source wait for their confirmation; the slots that it leaves suffice for the other."""
    go = asyncio.Event()

    async def hang(record: OutgoingRecord) -> None:
        if record.key.startswith("acme"):
            await go.wait()

    async with two_sources(MemoryPublisher(hang)) as here, asyncio.TaskGroup() as group:
        hanging = [group.create_task(_post(here, SENDER, "acme")) for _ in range(12)]
        async with asyncio.timeout(10):
            while not _answers(here, "acme")["503 source_requests_in_flight"]:  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.01)
        assert (await _post(here, SENDER, "other"))[0] == 422
        go.set()
        statuses = Counter([(await task)[0] for task in hanging])
        assert statuses == {422: 8, 503: 4}


async def test_bytes_in_flight_refuse_in_mid_body() -> None:
    """A body that finds no room is 503, and what it held is free again."""
    async with two_sources(max_body_bytes=1024, max_in_flight_bytes=4096) as here:
        assert (await _post(here, SENDER, "acme"))[0] == 422
        with here.ingress.limits.publishing(ACME, SENDER, 2730):
            assert await _post(here, SENDER, "acme") == (503, "5")
            assert (await _post(here, SENDER, "other"))[0] == 422
        assert (await _post(here, SENDER, "acme"))[0] == 422
