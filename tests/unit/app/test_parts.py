"""Parts start, serve and stop together; the first that fails ends all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from pipeline.app.ingress import Web
from pipeline.app.parts import Part, Worker, run_parts
from pipeline.errors import FatalError, TransientError
from pipeline.observability import Check, Health
from pipeline.webhooks.settings import IngressSettings


@dataclass
class Member:
    """A member of a group that does what a test says."""

    ready: bool = True
    alive: bool = True
    fails: Exception | None = None
    ends: bool = False
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def condition(self) -> str:
        return "joined, heartbeat fresh" if self.ready else "not in its group: kafka_sasl_refused: wrong password"

    async def run(self) -> None:
        if self.fails:
            raise self.fails
        if not self.ends:
            await self.stopped.wait()

    def stop(self) -> None:
        self.stopped.set()


class Server:
    """An ingress server that remembers its calls."""

    def __init__(self) -> None:
        self.ready = False
        self.told: list[str] = []
        self.ended = asyncio.Event()

    async def start(self) -> None:
        self.ready = True

    async def wait(self) -> None:
        await self.ended.wait()

    def begin_drain(self) -> None:
        self.ready = False
        self.told.append("drain")

    async def stop(self, grace: float) -> None:
        self.told.append(f"stop within {grace:g} s")
        self.ended.set()


def web(server: Server, *, connected: bool = True) -> Web:
    settings = IngressSettings(drain_seconds=0.01, read_timeout_seconds=2.0, deadline_seconds=7.0)
    return Web(server, settings, lambda: connected)  # type: ignore[arg-type]  # a stand-in with the same methods


def health(check: Check) -> Health:
    return check()


async def test_all_parts_serve_until_they_are_asked_to_stop() -> None:
    stop = asyncio.Event()
    members = [Member(), Member()]
    server = Server()
    parts: list[Part] = [Worker("confirm", members), web(server)]
    await asyncio.wait_for(run_parts(parts, stop, stop.set), 5)
    assert all(member.stopped.is_set() for member in members)
    assert server.told == ["drain", "stop within 9 s"]


async def test_services_of_the_ingress_end_with_it() -> None:
    """One that fails stops the process."""
    stop = asyncio.Event()
    told: list[str] = []

    async def service() -> None:
        told.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            told.append("ended")

    served = replace(web(Server()), services=[service])
    await asyncio.wait_for(run_parts([served], stop, stop.set), 5)
    assert told == ["begun", "ended"]

    async def fails() -> None:
        raise FatalError("planted", "a service that cannot go on")

    with pytest.raises(FatalError, match="planted"):
        await asyncio.wait_for(run_parts([replace(web(Server()), services=[fails])], asyncio.Event(), stop.set), 5)


async def test_being_started_is_reported_once_when_the_last_part_has_started() -> None:
    stop = asyncio.Event()
    late = Member(ready=False)
    told: list[bool] = []

    def on_started() -> None:
        told.append(late.ready)
        stop.set()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(run_parts([Worker("a", [Member()]), Worker("b", [late])], stop, on_started))
        await asyncio.sleep(0.02)
        assert told == []
        late.ready = True
    assert told == [True]


async def test_a_stop_before_the_start_was_reported_is_obeyed() -> None:
    stop = asyncio.Event()
    stop.set()
    told: list[bool] = []
    await asyncio.wait_for(run_parts([Worker("a", [Member(ready=False)])], stop, lambda: told.append(True)), 5)
    assert told == []


async def test_a_fatal_error_of_one_part_ends_all_and_is_what_is_raised() -> None:
    beside = asyncio.Event()

    async def service() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            beside.set()

    parts = [
        Worker("audit", [Member(fails=FatalError("audit_chain_damaged", "look"))]),
        Worker("a", [Member()], [service]),
    ]
    with pytest.raises(FatalError, match="audit_chain_damaged"):
        await asyncio.wait_for(run_parts(parts, asyncio.Event(), lambda: None), 5)
    assert beside.is_set()


async def test_a_part_that_ends_by_itself_is_named() -> None:
    with pytest.raises(FatalError, match="upload ended without being asked to"):
        await asyncio.wait_for(run_parts([Worker("upload", [Member(ends=True)])], asyncio.Event(), lambda: None), 5)


async def test_what_nobody_expected_is_raised_as_it_is() -> None:
    parts = [Worker("a", [Member(fails=ZeroDivisionError("bug"))])]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run_parts(parts, asyncio.Event(), lambda: None), 5)


async def test_of_several_errors_at_once_the_most_severe_is_raised() -> None:
    """A store that is unavailable must not hide that the process cannot do its work at all."""
    members = [Member(fails=TransientError("store_away", "x")), Member(fails=FatalError("kafka_records_lost", "look"))]
    with pytest.raises(FatalError, match="kafka_records_lost"):
        await asyncio.wait_for(run_parts([Worker("a", members)], asyncio.Event(), lambda: None), 5)


async def test_an_error_of_a_service_stops_its_worker() -> None:
    async def service() -> None:
        raise FatalError("token_gone", "look")

    with pytest.raises(FatalError, match="token_gone"):
        await asyncio.wait_for(run_parts([Worker("a", [Member()], [service])], asyncio.Event(), lambda: None), 5)


async def test_services_end_when_the_last_member_has_stopped() -> None:
    ended: list[bool] = []
    first, last = Member(), Member()

    async def service() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(last.stopped.is_set())

    worker = Worker("confirm", [first, last], [service])
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        await asyncio.sleep(0)
        first.stop()
        await asyncio.sleep(0.01)
        assert ended == []
        await worker.stop()
    assert ended == [True]


def test_a_worker_is_ready_when_every_member_is_and_alive_when_every_loop_turns() -> None:
    member = Member(ready=False, alive=False)
    worker = Worker("confirm", [Member(), member], alarms={"token-acme": lambda: Health(ok=False, message="no token")})
    assert list(worker.checks) == ["confirm-group"]
    assert health(worker.checks["confirm-group"]) == Health(ok=False, message=member.condition)
    assert not health(worker.alive).ok
    member.ready = member.alive = True
    assert health(worker.checks["confirm-group"]).ok
    assert health(worker.alive).ok
    assert worker.started, "one partner's missing token holds up neither the start nor readiness"


def test_the_ingress_is_ready_when_it_serves_and_the_broker_is_there() -> None:
    server = Server()
    cut_off = web(server, connected=False)
    assert {name: health(check).message for name, check in cut_off.checks.items()} == {
        "ingress": "not serving",
    }
    server.ready = True
    assert not cut_off.started
    assert web(server).started
    assert all(health(check).ok for check in web(server).checks.values())
    assert health(cut_off.alive).ok, "a restart would not bring the broker back"
