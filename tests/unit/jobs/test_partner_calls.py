"""Any error of a partner's plug-in affects one job only, and its text is never shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.job_world import World
from support.loud_processors import LOUD, shout

from pipeline.contracts import Record, Topic
from pipeline.errors import FatalError, PoisonRecord, TransientError
from pipeline.jobs import partner_calls
from pipeline.jobs.ecs import CallbackSettings, EcsPartner
from pipeline.jobs.partner_calls import ContainedPartner
from pipeline.jobs.partners import UNANSWERED, Answer, Notifications, NotifierContext
from pipeline.observability import Health, Metrics
from pipeline.outbound import HostRules, NetworkSettings
from pipeline.retry import RetryPolicy

SECRET = "https://bank.example/?sig=planted"
WAYS = pytest.mark.parametrize("way", [way for way in LOUD if way != "recursion"])


class Loud:
    """ECS's partner that shouts where a test says, or returns something else."""

    def __init__(self) -> None:
        self._ecs = EcsPartner(CallbackSettings(token_file=Path("not-read")))
        self.shouts: dict[str, str] = {}
        self.returns: dict[str, object] = {}

    def _do(self, call: str, otherwise: Any) -> Any:
        if call in self.shouts:
            shout(self.shouts[call], SECRET)
        return self.returns.get(call) or otherwise()

    @property
    def error_message_limit(self) -> int:
        return self._do("error_message_limit", lambda: 100)  # type: ignore[no-any-return]

    @property
    def field_names(self) -> dict[str, str]:
        return self._do("field_names", dict)  # type: ignore[no-any-return]

    def decode(self, value: bytes) -> Any:
        return self._do("decode", lambda: self._ecs.decode(value))

    def callback(self, announcement: Any, result: Any) -> Any:
        return self._do("callback", lambda: self._ecs.callback(announcement, result))

    @asynccontextmanager
    async def open_notifications(self, context: NotifierContext) -> AsyncIterator[Notifications]:
        del context
        self._do("open", dict)

        async def serve() -> None:
            self._do("service", dict)

        async def ready() -> None:
            self._do("ready", dict)

        def check() -> Health:
            return self._do("check", lambda: Health(ok=True))  # type: ignore[no-any-return]

        yield Notifications(self, RetryPolicy(1, 2), [serve], {"token": check}, ready)
        self._do("close", dict)

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Any:
        del url, job_guid, body, request_id
        return self._do("notify", lambda: Answer("accepted", 200, "callback_accepted", ""))


@pytest.fixture
def loud() -> Loud:
    return Loud()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured
    assert "planted" not in repr(captured)


def context() -> NotifierContext:
    made: Any = NotifierContext
    names = made.__dataclass_fields__
    rest = [None] * (len(names) - 5)
    found: NotifierContext = made("acme", HostRules(), NetworkSettings(), Metrics(), None, *rest)
    return found


@WAYS
async def test_a_partner_that_cannot_decode_lets_the_job_wait(loud: Loud, lines: list[Any], way: str) -> None:
    """A new version of the partner's code can fix this, so the announcement must not be lost until then."""
    world = World(partner=ContainedPartner(loud, "bank"))
    record = world.announce()
    loud.shouts["decode"] = way
    with pytest.raises(TransientError, match=rf"Partner bank: its decode raised {LOUD[way].__name__} at") as caught:
        await world.process.handle(record, world.lease)
    assert caught.value.code == "partner_failed"
    assert "planted" not in str(caught.value)
    assert [(line["event"], line["call"]) for line in lines] == [("partner_failed", "decode")]
    loud.shouts.clear()
    await world.process.handle(record, world.lease)
    assert len(world.bus.on(Topic.BATCH_PROCESSED)) == 1


async def test_a_partner_that_cannot_decode_holds_up_no_arrival(loud: Loud) -> None:
    """A record that never gets its turn is never parked: its partition would stop behind it."""
    world = World(partner=ContainedPartner(loud, "bank"))
    left: Record | None = world.announce()
    loud.shouts["decode"] = "exit"
    for _ in range(10):
        left = await world.handle("process", left) if left else None
    assert left is None
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert waiting.code == "partner_failed"


@WAYS
async def test_a_partner_that_cannot_make_a_callback_decides_nothing(loud: Loud, lines: list[Any], way: str) -> None:
    world = World(partner=ContainedPartner(loud, "bank"))
    record = world.announce(b"card_number\n")
    loud.shouts["callback"] = way
    with pytest.raises(TransientError, match="its callback raised"):
        await world.process.handle(record, world.lease)
    assert await world.jobs.outcome(world.ref) is None
    loud.shouts = {"error_message_limit": way, "field_names": way}
    await world.process.handle(record, world.lease)
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert len(json.loads(outcome.body)["error_message"]) <= 80
    assert {line["call"] for line in lines if line["event"] == "partner_failed"} == {
        "callback",
        "error_message_limit",
        "field_names",
    }


async def test_what_a_partner_must_return_is_checked(loud: Loud) -> None:
    partner = ContainedPartner(loud, "bank")
    loud.returns = {"decode": "x", "callback": "y", "notify": "z", "error_message_limit": "many", "check": True}
    with pytest.raises(TransientError, match="its decode returned str instead of JobAnnouncement"):
        partner.decode(b"{}")
    with pytest.raises(TransientError, match="its callback returned str instead of Callback"):
        partner.callback(None, None)  # type: ignore[arg-type]
    assert partner.error_message_limit == 80
    async with partner.open_notifications(context()) as notifications:
        with pytest.raises(TransientError, match="its notify returned str instead of Answer") as caught:
            await notifications.notifier.notify(SecretStr(""), job_guid="", body=b"", request_id="")
        assert notifications.alarms["token"]() == Health(
            ok=False, message="the check of partner bank returned bool instead of Health"
        )
    assert caught.value.code == UNANSWERED


async def test_a_value_that_is_no_announcement_is_still_poison(loud: Loud) -> None:
    world = World(partner=ContainedPartner(loud, "bank"))
    with pytest.raises(PoisonRecord, match="announcement_invalid"):
        await world.process.handle(world.record(b"{"), world.lease)


@WAYS
async def test_a_notifier_that_fails_is_one_without_an_answer(loud: Loud, lines: list[Any], way: str) -> None:
    """The partner may have the callback: a conflict at the next try is that try's."""
    async with ContainedPartner(loud, "bank").open_notifications(context()) as notifications:
        loud.shouts = {"notify": way, "check": way, "close": way, "ready": way}
        with pytest.raises(TransientError, match=rf"its notify raised {LOUD[way].__name__} at") as caught:
            await notifications.notifier.notify(SecretStr(SECRET), job_guid="", body=b"", request_id="")
        health = notifications.alarms["token"]()
        with pytest.raises(TransientError, match="partner_failed: Partner bank: its ready raised"):
            await notifications.ready()
    assert caught.value.code == UNANSWERED
    assert not health.ok
    assert "raised" in health.message
    assert "planted" not in f"{caught.value}{health}"
    assert [line["call"] for line in lines] == ["notify", "ready", "open_notifications"]


@WAYS
async def test_a_partner_that_cannot_be_opened_is_named_without_its_text(
    loud: Loud, lines: list[Any], way: str
) -> None:
    loud.shouts["open"] = way
    with pytest.raises(FatalError, match=r"Partner bank: its open_notifications raised \w+") as caught:
        async with ContainedPartner(loud, "bank").open_notifications(context()):
            pass
    assert "planted" not in str(caught.value)
    assert lines


async def test_a_service_that_fails_is_started_again(
    loud: Loud, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partner_calls, "_SERVICE_PAUSE_SECONDS", 0.0)
    async with ContainedPartner(loud, "bank").open_notifications(context()) as notifications:
        (service,) = notifications.services
        loud.shouts["service"] = "exit"
        task = asyncio.create_task(service())
        await asyncio.sleep(0.01)
        assert not task.done()
        loud.shouts.clear()
        await asyncio.wait_for(task, 5)
    assert {line["call"] for line in lines} == {"services"}
