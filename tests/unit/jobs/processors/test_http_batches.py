"""The processor that asks a service about several cards a request: what is sent, and whose an answer is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.paths import ROOT

from pipeline.errors import FatalError, TransientError
from pipeline.jobs.csv_engine import idempotency_key
from pipeline.jobs.processors import ProcessorSettings, adopt
from pipeline.jobs.processors.http import Http
from pipeline.jobs.processors.http.options import Decision
from pipeline.testing import job_context, run_processor

Said = Callable[[list[dict[str, Any]]], Any]


class Service:
    """A card service on loopback that decides whole batches, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.statuses = [200]
        self.says: Said = lambda cards: [{"status": "loaded", "id": f"r-{card['n']}"} for card in cards]
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note and answer."""
        body = await request.json()
        self.asked.append((request.headers["Idempotency-Key"], body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        cards = body["cards"] if isinstance(body, dict) else body
        return web.json_response(self.says(cards), status=status)

    @property
    def batches(self) -> list[list[str]]:
        """The numbers of the cards of each request. Chunks run side by side, so they are sorted."""
        return sorted(([card["n"] for card in body] for _, body in self.asked), key=lambda batch: batch[0])

    async def run(self, *numbers: str, **options: Any) -> list[dict[str, str]]:
        """Run the processor over cards; the engine of the tests makes chunks of two cards."""
        common: dict[str, Any] = {
            "url": f"{self.url}/cards",
            "allow_http": True,
            "allow_private": True,
            "body": {"n": "{card_number}", "key": "{__idempotency_key}"},
            "batch": {"size": 2},
            "decision": {"pointer": "/status", "ok": ["loaded"], "failed": ["declined"], "retry": ["busy"]},
            "result_columns": {"id": "/id"},
        }
        cards = [{"card_number": number} for number in numbers]
        return await run_processor("http", cards, **(common | options))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """Serve on a free port."""
    found = Service()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", found.handle)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/")).rstrip("/")
        yield found


def decided(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """Return number, status and id of each row."""
    return [(row["card_number"], row["status"], row["id"]) for row in rows]


async def test_a_batch_is_one_request_and_its_answers_keep_the_order(service: Service) -> None:
    rows = await service.run("1", "2", "3")
    assert service.batches == [["1", "2"], ["3"]]
    assert decided(rows) == [("1", "ok", "r-1"), ("2", "ok", "r-2"), ("3", "ok", "r-3")]


async def test_the_array_and_the_answers_may_be_inside_of_objects(service: Service) -> None:
    service.says = lambda cards: {"data": {"results": [{"status": "loaded", "id": card["n"]} for card in cards]}}
    rows = await service.run("1", "2", batch={"size": 2, "field": "cards", "answers": "/data/results"})
    assert [list(body) for _, body in service.asked] == [["cards"]]
    assert decided(rows) == [("1", "ok", "1"), ("2", "ok", "2")]


async def test_answers_are_matched_by_a_key_in_any_order(service: Service) -> None:
    service.says = lambda cards: [{"of": c["key"], "status": "loaded", "id": c["n"]} for c in reversed(cards)]
    rows = await service.run("1", "2", batch={"size": 2, "match": "/of"})
    assert decided(rows) == [("1", "ok", "1"), ("2", "ok", "2")]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (slice(0, 1), "the card service gave 1 answers for 2 cards"),
        (None, "the card service gave 3 answers for 2 cards"),
    ],
    ids=["missing", "extra"],
)
async def test_answers_that_do_not_match_by_order_fail_the_whole_batch(
    service: Service, cut: slice | None, said: str
) -> None:
    """A shifted result would be worse than none."""

    def answers(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        right = [{"status": "loaded", "id": card["n"]} for card in cards]
        return right[cut] if cut else [{"status": "loaded", "id": "x"}, *right]

    service.says = answers
    rows = await service.run("1", "2")
    assert [(row["status"], row["message"], row["id"]) for row in rows] == [("failed", said, "")] * 2
    assert len(service.asked) == 1


async def test_a_card_without_an_answer_of_its_own_fails_alone(service: Service) -> None:
    def answers(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = [{"of": card["key"], "status": "loaded", "id": card["n"]} for card in cards]
        if cards[0]["n"] == "3":
            return [found[0], found[0], found[1]]
        return [{"of": "somebody", "status": "loaded", "id": "x"}, {"status": "loaded", "id": "y"}, found[1]]

    service.says = answers
    rows = await service.run("1", "2", "3", "4", batch={"size": 2, "match": "/of"})
    assert [(row["status"], row["id"], row["message"]) for row in rows] == [
        ("failed", "", "the card service gave no answer for this card, and 2 for cards that were not sent"),
        ("ok", "2", ""),
        ("failed", "", "the card service gave several answers for this card"),
        ("ok", "4", ""),
    ]


async def test_cards_with_equal_or_empty_keys_are_not_sent(service: Service) -> None:
    service.says = lambda cards: [{"of": card["n"], "status": "loaded", "id": card["n"]} for card in cards]
    match = {"size": 2, "match": "/of", "key": "{card_number}"}
    rows = await service.run("7", "7", "", "8", batch=match)
    assert service.batches == [["8"]]
    assert [row["message"] for row in rows] == [
        "another card of its batch has the same key",
        "another card of its batch has the same key",
        "the key of the card is empty",
        "",
    ]


async def test_only_the_cards_that_the_answer_asks_for_are_sent_again(service: Service) -> None:
    """Under another key: what the service remembers of the first request must not answer them."""
    waiting = {"2": 2}

    def answers(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        said = []
        for card in cards:
            waiting[card["n"]] = left = waiting.get(card["n"], 0) - 1
            said.append({"status": "busy" if left >= 0 else "loaded", "id": card["n"]})
        return said

    service.says = answers
    rows = await service.run("1", "2")
    assert service.batches == [["1", "2"], ["2"], ["2"]]
    assert decided(rows) == [("1", "ok", "1"), ("2", "ok", "2")]
    assert len({key for key, _ in service.asked}) == 3


async def test_a_request_that_is_repeated_has_the_same_key_and_body(service: Service) -> None:
    """In every run of the job, on every worker: the bounds of batches follow from the chunk."""
    service.statuses = [503, 200]
    await service.run("1", "2")
    assert service.asked[0] == service.asked[1]
    await service.run("3", "4", "5")
    first = {key for key, _ in service.asked}
    service.asked.clear()
    await service.run("1", "2", "3")
    assert {key for key, _ in service.asked} == first
    assert idempotency_key("test", job_context().job_guid, 1) not in first


@pytest.mark.parametrize(
    ("value", "status", "message"),
    [
        ("loaded", "ok", ""),
        ("declined", "failed", "the card service says declined"),
        ("busy", "failed", "the card service says busy (after 3 attempts)"),
        ("4111111111111111", "failed", "the card service's answer has an unknown value at /status"),
        (None, "failed", "the card service's answer could not be read (after 3 attempts)"),
    ],
)
@pytest.mark.parametrize("batch", [None, {"size": 2}])
async def test_the_value_at_the_pointer_decides(
    service: Service, batch: object, value: str | None, status: str, message: str
) -> None:
    """Only values that the settings name get into a message."""
    entry = {"status": value, "id": "r"}
    service.says = lambda cards: [entry] * len(cards)
    options: dict[str, Any] = {"batch": batch}
    if batch is None:
        options |= {"body": [{"n": "{card_number}"}], "decision": {"pointer": "/0/status", "ok": ["loaded"]}}
        options["decision"] |= {"failed": ["declined"], "retry": ["busy"]}
        message = message.replace("/status", "/0/status")
    rows = await service.run("1", **options)
    assert (rows[0]["status"], rows[0]["message"]) == (status, message)


async def test_without_a_decision_the_status_decides_all_cards_of_a_batch(service: Service) -> None:
    options: dict[str, Any] = {"decision": None, "result_columns": {}}
    service.statuses, service.says = [200], lambda _cards: "whatever"
    assert [row["status"] for row in await service.run("1", "2", **options)] == ["ok"] * 2
    service.statuses = [422]
    rows = await service.run("1", "2", **options)
    assert [(row["status"], row["message"]) for row in rows] == [("failed", "the card service answered 422")] * 2


@pytest.mark.parametrize("batch", [{"size": 2}, {"size": 2, "match": "/of"}])
async def test_a_refusal_of_the_whole_batch_has_no_columns_of_a_card(service: Service, batch: dict[str, Any]) -> None:
    """What it says is about the request: "/id" is the id of no card there."""
    service.statuses, service.says = [422], lambda _cards: {"id": "of-the-request"}
    rows = await service.run("1", "2", batch=batch)
    said = "the card service answered 422"
    assert [(row["status"], row["message"], row["id"]) for row in rows] == [("failed", said, "")] * 2


async def test_an_answer_without_the_array_is_tried_again(service: Service) -> None:
    service.says = lambda _cards: {"status": "loaded"}
    rows = await service.run("1", "2")
    assert {row["message"] for row in rows} == {"the card service's answer could not be read (after 3 attempts)"}
    assert len(service.asked) == 3


@pytest.mark.parametrize("says", ["no JSON array", [{"state": "loaded"}, {"state": "loaded"}]])
async def test_a_batch_whose_result_is_not_known_is_repeated_under_the_same_key(service: Service, says: object) -> None:
    """The service has done its work: under another key it would do it once more."""
    service.says = lambda _cards: says
    rows = await service.run("1", "2")
    assert {row["message"] for row in rows} == {"the card service's answer could not be read (after 3 attempts)"}
    assert len(service.asked) == 3
    assert len({key for key, _ in service.asked}) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_batch_that_is_refused_as_a_whole_is_repeated_under_the_same_key(service: Service, status: int) -> None:
    service.statuses = [status, 200]
    rows = await service.run("1", "2")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert service.asked[0] == service.asked[1]


@pytest.mark.parametrize("batch", [None, {"size": 2}])
async def test_an_answer_that_is_too_long_names_the_limit(service: Service, batch: object) -> None:
    service.says = lambda cards: [{"status": "loaded", "id": "x" * 100}] * len(cards)
    options: dict[str, Any] = {"batch": batch, "max_answer_bytes": 50}
    if batch is None:
        options["body"] = [{"n": "{card_number}"}]
    said = "the card service's answer could not be read: it is longer than max_answer_bytes"
    rows = await service.run("1", "2", **options)
    assert {(row["status"], row["message"]) for row in rows} == {("failed", f"{said} (after 3 attempts)")}
    rows = await service.run("1", "2", **options, decision=None)
    assert {(row["status"], row["message"]) for row in rows} == {("ok", said)}


async def test_refused_credentials_put_the_job_of_a_batch_off(service: Service) -> None:
    service.statuses = [401]
    with pytest.raises(TransientError, match="http_credentials_refused"):
        await service.run("1", "2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": {"size": 2}}, "batch needs body, the document sent for each card"),
        ({"batch": {"size": 1}, "body": {}}, "batch.size: "),
        ({"batch": {"size": 2}, "body": {}, "method": "GET"}, "batch needs a method with a body"),
        ({"batch": {"size": 2, "key": "k"}, "body": {}}, "batch.key: must name a column"),
        ({"batch": {"size": 2, "match": "of"}, "body": {}}, "batch.match: "),
        (
            {"batch": {"size": 2}, "body": {}, "url": "https://c.example/{card_number}"},
            "url must not have {card_number}: with batch, one request is about several cards",
        ),
        ({"decision": {"pointer": "/s", "ok": ["a"], "retry": ["a"]}}, "decision: 'a' appears twice"),
        ({"decision": {"pointer": "/s", "ok": []}}, "decision.ok: "),
        ({"decision": {"pointer": "s", "ok": ["a"]}}, "decision.pointer: "),
    ],
)
def test_wrong_options_of_batches_and_decisions_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FatalError) as caught:
        adopt(Http, ProcessorSettings(name="http", options={"url": "https://c.example", **options}))
    assert said in caught.value.message


def test_one_request_may_name_the_job() -> None:
    options = {"url": "https://c.example/{__job_guid}", "batch": {"size": 2}, "body": {}}
    assert adopt(Http, ProcessorSettings(name="http", options=options)).cards_per_call == 2


PAGE = (ROOT / "docs" / "how-to" / "call-a-card-service.md").read_text("utf-8")
SNIPPETS = [tomllib.loads(text) for text in re.findall(r"^```toml\n(\[ecs\..+?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


def test_the_settings_of_the_page_are_accepted() -> None:
    tables = [snippet["ecs"]["acme"]["processor"] for snippet in SNIPPETS]
    asked = [table for table in tables if table.get("name") == "http"]
    assert len(asked) == 3
    for table in (table for table in asked if "options" in table):
        assert isinstance(adopt(Http, ProcessorSettings.model_validate(table)).processor, Http)
    (decision,) = [table["options"]["decision"] for table in tables if "name" not in table and "options" in table]
    assert Decision.model_validate(decision).ok == ("loaded",)


async def test_the_batch_of_the_page_does_what_the_page_says(service: Service) -> None:
    (table,) = [
        one["ecs"]["acme"]["processor"]["options"]
        for one in SNIPPETS
        if "batch" in str(one["ecs"]["acme"]["processor"])
    ]
    del table["oauth"]
    service.says = lambda cards: {
        "results": [{"ref": card["ref"], "status": "loaded", "id": card["number"]} for card in reversed(cards)]
    }
    rows = await service.run("1", "2", **(table | {"url": f"{service.url}/v1/loads"}))
    assert [(row["status"], row["reference"]) for row in rows] == [("ok", "1"), ("ok", "2")]
