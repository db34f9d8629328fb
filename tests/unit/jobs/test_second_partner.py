"""A partner of one's own, found by entry point: other announcement, other callback, all stages unchanged."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from support.job_world import BEGIN, CARDS, World
from support.paths import SUPPORT

from pipeline.contracts import Topic
from pipeline.errors import FatalError, PoisonRecord, TransientError
from pipeline.jobs.partners import Answer, NotifierContext, Partner, load_partner_kind
from pipeline.jobs.transfer import SourceRefused
from pipeline.observability import Metrics
from pipeline.outbound import AddressRefused, HostRules, NetworkSettings

REPORT = "https://bank.example/reports"


async def no_resume(code: str | None = None) -> None:
    del code


@pytest.fixture(autouse=True)
def bank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Return the installed package of another partner."""
    monkeypatch.syspath_prepend(str(SUPPORT / "bank_partner"))
    yield
    sys.modules.pop("bank_partner", None)


def partner(report_url: str = REPORT) -> Partner:
    kind = load_partner_kind("example-bank")
    return kind.partner("acme", kind.Options.model_validate({"report_url": report_url}))


def order(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "order": 17,
        "branch": "north",
        "rows": 3,
        "cards": "https://bank.example/cards?key=planted1",
        "report": "https://bank.example/report?key=planted2",
        "until": (BEGIN + timedelta(hours=1)).isoformat(),
    }
    return json.dumps(fields | changes).encode()


def world_with_cards() -> World:
    world = World(partner=partner())
    world.objects.inputs["https://bank.example/cards?key=planted1"] = CARDS
    return world


async def test_a_job_of_another_partner_goes_through_all_stages() -> None:
    """Its own shape comes in, its own shape goes out, to the URL of its options."""
    world = world_with_cards()
    await world.run(world.record(order()))

    (target, result), *others = world.objects.put
    assert (target, others) == ("https://bank.example/report?key=planted2", [])
    assert result.count(b",ok,") == 2
    ((url, _, body, request_id),) = world.ecs.calls
    assert url == REPORT
    assert json.loads(body) == {"order": 17, "state": "DONE", "good": 2, "bad": 1, "text": ""}
    assert len(request_id) == 64
    (completed,) = world.bus.on(Topic.BATCH_COMPLETED)
    assert json.loads(completed.value)["partner_reference_id"] == "17"
    assert b"planted" not in b"".join(one.value for one in world.bus.published)


async def test_a_repeated_message_sends_the_same_callback_or_none() -> None:
    world = world_with_cards()
    world.ecs.answers.append(TransientError("callback_try_later", "busy"))
    record = world.record(order())
    with pytest.raises(TransientError):
        await world.run(record)
    world.restart()
    await world.run(record)
    assert len(world.ecs.calls) == 2
    assert world.ecs.calls[0] == world.ecs.calls[1]


async def test_a_failed_job_is_explained_in_the_partners_own_field_names_and_length() -> None:
    """The stages speak of record_count and input_file_url; the bank calls them rows and cards."""
    world = world_with_cards()
    await world.run(world.record(order(rows=2)))
    report = json.loads(world.ecs.calls[0][2])
    assert report["state"] == "ERROR"
    assert report["text"].startswith("The file holds more records than announced: rows is 2")
    assert len(report["text"]) <= 80

    world = world_with_cards()
    world.objects.fail_open.append(SourceRefused("source_expired", "input_file_url was refused: it has expired."))
    await world.run(world.record(order()))
    assert json.loads(world.ecs.calls[0][2])["text"].startswith("cards was refused: it has expired. Announce the")


async def test_a_job_that_nobody_started_fails_at_the_partners_deadline() -> None:
    world = world_with_cards()
    await world.deliver(world.watch, world.record(order()))
    world.clock.forward(hours=1)
    await world.watch.poll()
    for record in world.records(Topic.BATCH_FAILED):
        await world.deliver(world.confirm, record)
    assert json.loads(world.ecs.calls[0][2])["state"] == "ERROR"


async def test_a_value_that_is_no_announcement_of_the_partner_is_poison() -> None:
    """Also where another partner would take it."""
    world = world_with_cards()
    with pytest.raises(PoisonRecord, match="announcement_invalid"):
        await world.process.arrive(world.announce())
    with pytest.raises(PoisonRecord, match="announcement_invalid"):
        await world.process.arrive(world.record(b"{"))


@pytest.mark.parametrize(
    ("status", "text", "result", "code"),
    [
        (200, "OK 17", "accepted", "callback_accepted"),
        (200, "OK 18", "refused", "callback_refused"),
        (400, "no", "refused", "callback_refused"),
        (409, "known", "refused", "callback_conflict"),
    ],
)
async def test_the_partners_own_notifier_sends_its_callback(status: int, text: str, result: str, code: str) -> None:
    """Over loopback, through the same guarded sessions as everybody's."""
    seen: list[tuple[str | None, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Idempotency-Key"), await request.read()))
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_post("/reports", take)
    async with TestServer(app) as server:
        url = f"http://127.0.0.1:{server.port}/reports"
        hosts = HostRules(callback=(f"127.0.0.1:{server.port}",), allow_http=True, allow_private=True)
        async with partner(url).open_notifications(surroundings(hosts)) as notifications:
            answer = await notifications.notifier.notify(
                SecretStr(url), job_guid="", body=b'{"order": 17}', request_id="r-1"
            )
            with pytest.raises(AddressRefused):
                await notifications.notifier.notify(
                    SecretStr("https://elsewhere.example/"), job_guid="", body=b'{"order": 17}', request_id="r-1"
                )
    assert answer == Answer("accepted" if result == "accepted" else "refused", status, code, text)
    assert seen == [("r-1", b'{"order": 17}')]


def surroundings(hosts: HostRules) -> NotifierContext:
    return NotifierContext("acme", hosts, NetworkSettings(), Metrics(), lambda: BEGIN, lambda _secret: None, no_resume)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("nobody", "partner_unknown", "There is no partner 'nobody'. Installed: example-bank, "),
        ("example-bank-no-module", "partner_unknown", "cannot be imported: there is no module "),
        (
            "example-bank-no-module",
            "partner_unknown",
            "(pip install), or set PYTHONPATH to the folder that holds the module",
        ),
        ("example-bank-half", "partner_invalid", "needs `partner(self, name, options)`"),
        ("example-bank-closed", "partner_invalid", "needs to be a class with a pydantic `Options`"),
    ],
)
def test_what_is_no_partner_is_refused_with_the_reason(name: str, code: str, words: str) -> None:
    with pytest.raises(FatalError) as caught:
        load_partner_kind(name)
    assert caught.value.code == code
    assert words in caught.value.message
