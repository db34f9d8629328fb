"""The processor that asks a service: what is sent, what its answers mean, and what is kept out of messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.jobs.csv_engine import idempotency_key
from pipeline.jobs.processors import Card, ProcessorSettings, TransientCardError, adopt
from pipeline.jobs.processors.http import Http
from pipeline.testing import job_context, run_processor

NUMBER = "4111111111111111"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """A card service on loopback that records its requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Answer = self.created
        self.url = ""

    async def created(self, _request: web.Request) -> web.StreamResponse:
        """Accept a card."""
        return web.json_response({"data": {"id": "r-1"}}, status=201)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note and answer."""
        self.asked.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        return await self.answer(request)

    def says(self, *statuses: int, **headers: str) -> None:
        """Answer with one status after the other, the last one for ever."""
        left = list(statuses)

        async def answer(_request: web.Request) -> web.StreamResponse:
            status = left.pop(0) if len(left) > 1 else left[0]
            return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

        self.answer = answer

    async def run(self, *numbers: str, **options: Any) -> list[dict[str, str]]:
        """Run the processor over cards."""
        cards = [{"card_number": number, "name": 'a"b\\/é'} for number in numbers or (NUMBER,)]
        common: dict[str, Any] = {"url": f"{self.url}/cards", "allow_http": True, "allow_private": True}
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


async def test_a_card_is_posted_with_its_idempotency_key(service: Service) -> None:
    """The key is the same at every repetition and after every restart."""
    service.says(503, 201)
    rows = await service.run()
    assert [row["status"] for row in rows] == ["ok"]
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in service.asked]
    assert keys == [idempotency_key("test", job_context().job_guid, 1)] * 2


async def test_the_body_is_json_whatever_the_columns_hold(service: Service) -> None:
    """Inserted values stay inside their strings, and other JSON values do not change."""
    body = {
        "card": {"number": "{__card_number}", "holder": "Mx {name}"},
        "list": ["{__record}", 7, None, True],
        "{{}}": "{{{name}}}",
        "job": "{__job_guid} {__merchant_guid} {__integration} {__partner_reference_id} {__idempotency_key}",
    }
    await service.run(body=body)
    method, path, headers, sent = service.asked[0]
    context = job_context()
    key = idempotency_key("test", context.job_guid, 1)
    assert (method, path, headers["Content-Type"]) == ("POST", "/cards", "application/json")
    assert json.loads(sent) == {
        "card": {"number": NUMBER, "holder": 'Mx a"b\\/é'},
        "list": ["1", 7, None, True],
        "{{}}": '{a"b\\/é}',
        "job": f"{context.job_guid} {context.merchant_guid} test merchant-1 {key}",
    }


async def test_the_body_may_be_written_as_text(service: Service) -> None:
    """JSON first, templates then: a value cannot break out of its string."""
    await service.run(body='{"number": "{card_number}", "holder": ["{name}"]}')
    assert json.loads(service.asked[0][3]) == {"number": NUMBER, "holder": ['a"b\\/é']}


async def test_columns_in_the_url_are_percent_encoded(service: Service) -> None:
    """Any value stays one segment of the path, or one value of the query."""
    await service.run("4/../x?y#z", url=f"{service.url}/cards/{{card_number}}/load?name={{name}}&x={{__record}}")
    assert service.asked[0][1] == "/cards/4%2F..%2Fx%3Fy%23z/load?name=a%22b%5C%2F%C3%A9&x=1"


@pytest.mark.parametrize("number", ["", ".", ".."])
async def test_a_value_that_would_name_another_resource_fails_the_card(service: Service, number: str) -> None:
    """``DELETE /cards/`` is not about one card."""
    rows = await service.run(number, "1", url=f"{service.url}/cards/{{card_number}}", method="DELETE")
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert [path for _, path, _, _ in service.asked] == ["/cards/1"]


async def test_a_missing_column_fails_the_job(service: Service) -> None:
    """No card can be sent without it."""
    with pytest.raises(PermanentError, match="http_column_missing: Processor http needs a column 'nmae'"):
        await service.run(body={"name": "{nmae}"})


@pytest.mark.parametrize(
    ("status", "options", "expected"),
    [
        (200, {}, "ok"),
        (204, {}, "ok"),
        (302, {}, "failed"),
        (404, {}, "failed"),
        (422, {}, "failed"),
        (501, {}, "failed"),
        (409, {"ok_statuses": ["2xx", 409]}, "ok"),
        (202, {"failed_statuses": [202]}, "failed"),
        (401, {"failed_statuses": [401]}, "failed"),
        (503, {"failed_statuses": ["5xx"]}, "failed"),
    ],
)
async def test_statuses_decide(service: Service, status: int, options: dict[str, Any], expected: str) -> None:
    """By default 2xx is ok and the rest failed, apart from what a retry or another token may fix."""
    service.says(status)
    rows = await service.run(**options)
    assert rows[0]["status"] == expected
    assert rows[0]["message"] == ("" if expected == "ok" else f"the card service answered {status}")
    assert len(service.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_statuses_that_may_pass_are_tried_again_boundedly(service: Service, status: int) -> None:
    """Then the card fails, others do not."""
    service.says(status)
    rows = await service.run()
    assert rows[0]["message"] == f"the card service answered {status} (after 3 attempts)"
    assert len(service.asked) == 3


@pytest.mark.parametrize(("field", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2020 07:28:00 GMT", 0.0), ("x", None)])
async def test_retry_after_is_passed_on(service: Service, field: str, seconds: float | None) -> None:
    """The engine grants it up to its limit."""
    service.says(429, Retry_After=field)
    options = {"url": service.url, "allow_http": True, "allow_private": True}
    async with adopt(Http, ProcessorSettings(name="http", options=options)) as loaded:
        assert isinstance(loaded.processor, Http)
        with pytest.raises(TransientCardError) as caught:
            await loaded.processor.process(Card(1, NUMBER, {}, "key"), job_context())
    assert caught.value.retry_after == seconds


async def test_redirects_are_not_followed(service: Service) -> None:
    """Another address is another service."""
    service.says(307, Location="/elsewhere")
    rows = await service.run()
    assert rows[0]["message"] == "the card service answered 307"
    assert len(service.asked) == 1


async def test_result_columns_are_taken_from_the_answer(service: Service) -> None:
    """By JSON pointer, numbers as the text they are; of a refusal too; what is not there is empty."""

    async def answer(request: web.Request) -> web.StreamResponse:
        number = json.loads(await request.read())["n"]
        text = (
            '{"data": {"a/b": [{"id": 12345678901234567890.10}]}, "yes": true, "o": {"x": [1]}, "no": null, "s": "=1"}'
        )
        return web.Response(text=text, status=201 if number == "1" else 422)

    service.answer = answer
    pointers = {"id": "/data/a~1b/0/id", "yes": "/yes", "o": "/o", "no": "/no", "s": "/s", "gone": "/data/a~1b/7/id"}
    rows = await service.run("1", "2", body={"n": "{card_number}"}, result_columns=pointers)
    wanted = {"id": "12345678901234567890.10", "yes": "true", "o": '{"x":["1"]}', "no": "", "s": "'=1", "gone": ""}
    for row, status in zip(rows, ["ok", "failed"], strict=True):
        assert row["status"] == status
        assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize("text", ["", "<html>", "[" * 50_000, '{"id": "' + "x" * 70_000 + '"}', "\udcff"])
async def test_an_answer_that_cannot_be_read_leaves_the_card_ok(service: Service, text: str) -> None:
    """Its effect has happened; the message says why the columns are empty."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode("utf-8", "surrogateescape"))

    service.answer = answer
    rows = await service.run(result_columns={"id": "/id"})
    assert (rows[0]["status"], rows[0]["id"]) == ("ok", "")
    limit = ": it is longer than max_answer_bytes" if len(text) > 65_536 else ""
    assert rows[0]["message"] == f"the card service's answer could not be read{limit}"


async def test_half_a_surrogate_pair_in_an_answer_is_replaced(service: Service) -> None:
    """JSON may hold one; the result file is UTF-8."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"id": "a\\ud800b"}')

    service.answer = answer
    rows = await service.run(result_columns={"id": "/id"})
    assert rows[0]["id"] == "a?b"


async def test_the_token_is_sent_and_read_again_when_its_file_changes(service: Service, tmp_path: Path) -> None:
    """A rotation needs no restart; a 401 in its moment repeats the card with the new one."""
    file = tmp_path / "token"
    file.write_text("old\n")

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] == "Bearer new":
            return web.Response(status=201)
        (tmp_path / "next").write_text("new\n")
        (tmp_path / "next").replace(file)
        return web.Response(status=401)

    service.answer = answer
    rows = await service.run(token_file=str(file))
    assert rows[0]["status"] == "ok"
    assert [headers["Authorization"] for _, _, headers, _ in service.asked] == ["Bearer old", "Bearer new"]


async def test_a_token_may_have_a_header_of_its_own(service: Service, tmp_path: Path) -> None:
    """An API key is an example."""
    (tmp_path / "key").write_text("k")
    await service.run(
        token_file=str(tmp_path / "key"), token_header="X-Api-Key", token_prefix="", idempotency_header=""
    )
    headers = service.asked[0][2]
    assert headers["X-Api-Key"] == "k"
    assert "Idempotency-Key" not in headers
    assert "Authorization" not in headers


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_put_the_job_off(service: Service, status: int) -> None:
    """No card may fail because of the operator's mistake."""
    service.says(status)
    with pytest.raises(TransientError, match="http_credentials_refused"):
        await service.run()
    assert len(service.asked) == 1


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two\nlines", b"\xff"])
async def test_a_token_that_cannot_be_read_puts_the_job_off(
    service: Service, tmp_path: Path, content: bytes | None
) -> None:
    """The message names the file, never its content."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(TransientError, match="http_token_unavailable") as caught:
        await service.run(token_file=str(tmp_path / "token"))
    assert "lines" not in caught.value.message.replace("one line", "")
    assert service.asked == []


async def test_network_errors_are_tried_again_and_named_by_kind(service: Service) -> None:
    """The URL, which may hold the card number, is in no message."""

    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    service.answer = drop
    rows = await service.run(url=f"{service.url}/cards/{{card_number}}")
    assert rows[0]["message"].startswith("the card service gave no answer (")
    assert rows[0]["message"].endswith("(after 3 attempts)")
    assert NUMBER not in rows[0]["message"]
    assert len(service.asked) == 3


async def test_a_slow_answer_is_given_up(service: Service) -> None:
    """The configured time bounds the whole answer, with its body."""

    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    service.answer = hang
    rows = await service.run(timeout_seconds=0.02)
    assert "TimeoutError" in rows[0]["message"]


async def test_a_private_address_must_be_allowed(service: Service) -> None:
    """As for every other connection; the job fails with what to write."""
    with pytest.raises(PermanentError, match="address_not_allowed") as caught:
        await service.run(allow_private=False)
    assert "allow_private = true" in caught.value.message


async def test_headers_are_sent_as_configured(service: Service) -> None:
    """A content type may be among them."""
    await service.run(headers={"X-Programme": "gold", "Content-Type": "application/vnd.api+json"}, body={"a": 1})
    headers = service.asked[0][2]
    assert (headers["X-Programme"], headers["Content-Type"]) == ("gold", "application/vnd.api+json")


async def test_cards_before_open_are_a_fault_of_the_caller() -> None:
    """Closing twice is allowed."""
    loaded = adopt(Http, ProcessorSettings(name="http", options={"url": "https://cards.example.com"}))
    assert isinstance(loaded.processor, Http)
    with pytest.raises(RuntimeError):
        await loaded.processor.process(Card(1, "1", {}, "key"), job_context())
    await loaded.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "url: Field required"),
        ({"url": "cards"}, "url must be an absolute URL"),
        ({"url": "http://cards.example.com"}, "url must begin with https:// (allow_http = true would allow http)"),
        ({"url": "https://{host}/"}, "url must not have a {column} in its host"),
        ({"url": "https://user@cards.example.com/"}, "must not name a user"),
        ({"url": "https://cards.example.com/{"}, "a lone {"),
        ({"url": "https://cards.example.com/{a?b}"}, "a lone {"),
        ({"url": "https://cards.example.com/a b"}, "percent-encoded"),
        ({"url": "https://c.example", "body": {"a": "}"}}, "body: a lone }"),
        ({"url": "https://c.example", "body": '{"a": {b}}'}, "body: not a JSON document"),
        ({"url": "https://c.example", "body": "7"}, "body"),
        ({"url": "https://c.example", "headers": {"a b": "c"}}, "'a b' is not a valid header field"),
        ({"url": "https://c.example", "headers": {"a": "b\r\nc"}}, "'a' is not a valid header field"),
        ({"url": "https://c.example", "headers": {"idempotency-key": "1"}}, "headers must not set idempotency-key"),
        ({"url": "https://c.example", "idempotency_header": "a b"}, "idempotency_header"),
        ({"url": "https://c.example", "token_file": "/t", "token_header": ""}, "token_header: "),
        ({"url": "https://c.example", "result_columns": {"id": "data.id"}}, "result_columns.id"),
        ({"url": "https://c.example", "retry_statuses": ["6xx"]}, "retry_statuses"),
        (
            {"url": "https://c.example", "verb": "POST"},
            "verb: is not an option; there are allow_http, allow_private, ",
        ),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    """The error comes before any card is processed."""
    with pytest.raises(FatalError) as caught:
        adopt(Http, ProcessorSettings(name="http", options=options))
    assert said in caught.value.message


async def test_a_column_cannot_pass_for_a_fact_of_the_job(service: Service) -> None:
    """A file with a column named __merchant_guid must not load cards in another merchant's name."""
    names = ("__merchant_guid", "__integration", "__job_guid", "__partner_reference_id")
    card = {"card_number": NUMBER} | dict.fromkeys(names, "forged")
    body = {name: f"{{{name}}}" for name in names}
    await run_processor("http", [card], url=f"{service.url}/cards", allow_http=True, allow_private=True, body=body)
    assert "forged" not in json.loads(service.asked[0][3]).values()
