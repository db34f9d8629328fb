"""The hot path against the plain way, which is the reference: whatever comes, both do the same."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from pipeline.app import open_webhooks
from pipeline.contracts import OutgoingRecord
from pipeline.contracts.weavr import KINDS
from pipeline.errors import Overloaded, TransientError
from pipeline.kafka import RecordTooLarge
from pipeline.kafka.testing import MemoryPublisher
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.settings import load_settings
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import Serving, serving
from pipeline.webhooks.webhook import Webhook

NOW: Final = datetime(2026, 1, 22, 22, 44, tzinfo=UTC)
TIME: Final = str(int(NOW.timestamp() * 1000))
KEY: Final = "synthetic-webhook-secret-0123456789"
SETTINGS: Final = """
[ecs.acme]
partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"
callback = { token_file = "key" }
hosts = { input = ["files.example", "*.below.example"], result = ["files.example:8443"], callback = ["ecs.example"] }
[ecs.acme.webhook]
scheme = "hmac"
header = "X-Signature"
prefix = "sha256="
secrets = [{ file = "old" }, { file = "key" }]

[weavr.acme]
secrets = [{ file = "old", not_after = "2026-01-22T22:00:00Z" }, { file = "key" }]
[[weavr.acme.unsigned_paths]]
path = "/bulk_process_end/watch"
source_addresses = ["198.51.100.0/24"]
"""
LIMITS: Final = IngressSettings(
    port=0, max_body_bytes=20_000, trusted_proxies=("127.0.0.0/8",), alarm_interval_seconds=3600
)
SIGNED: Final = [kind.path for kind in KINDS if kind.signed]
UNSIGNED: Final = "/bulk_process_end/watch"
WEAVR: Final = "/webhooks/weavr/acme"
ECS: Final = "/webhooks/ecs/acme"
ANNOUNCEMENT: Final = {
    "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
    "partner_reference_id": "integrator-merchant1-location-002",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": ["46691", "32049"],
    "record_count": 200,
    "input_file_url": "https://files.example/batch/input.csv?X-Signature=0123",
    "result_upload_url": "https://files.example:8443/batch/output.csv",
    "expires_at": "2026-01-23T10:43:59.295Z",
    "callback_url": "https://ecs.example/api/x",
}


def _webhooks(folder: Path) -> list[Webhook]:
    """Return the webhooks of the settings, as production makes them."""
    for name, value in (("key", KEY), ("old", "synthetic-secret-of-before-0123456789")):
        (folder / name).write_text(value)
        (folder / name).chmod(0o600)
    (folder / "pipeline.toml").write_text(SETTINGS)
    return open_webhooks(load_settings(folder / "pipeline.toml", {}), clock=lambda: NOW)


@dataclass
class Request:
    """One request, as bytes on the wire."""

    path: str
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)
    method: str = "POST"
    version: str = "HTTP/1.1"
    cut: int = 0

    @property
    def whole(self) -> bool:
        """Whether nobody waits for more of it."""
        names = {name.lower() for name, _ in self.headers}
        return not self.cut and names.isdisjoint({"content-length", "transfer-encoding", "expect", "upgrade"})

    @property
    def wire(self) -> bytes:
        """What is sent."""
        lines = [f"{self.method} {self.path} {self.version}", "Host: here"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not any(name.lower() in {"transfer-encoding", "content-length"} for name, _ in self.headers):
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        return head + self.body[: len(self.body) - self.cut]


def event(path: str, body: bytes, **changes: str | None) -> Request:
    """Return a signed event; ``changes`` replace or remove what is signed."""
    values: dict[str, str | None] = {"call-ref": "ref-1", "published-timestamp": TIME, **changes}
    message = (values["call-ref"] or "").encode() + body + (values["published-timestamp"] or "").encode()
    signature = base64.b64encode(hmac.digest(KEY.encode(), message, "sha256")).decode()
    headers = [("Content-Type", "application/json"), ("Signature-V2", signature), ("Request-Ref", "r-1")]
    return Request(
        WEAVR + path, body, [*headers, *((name, value) for name, value in values.items() if value is not None)]
    )


def unsigned_event(body: bytes, client: str) -> Request:
    """Return an event of the kind that Weavr does not sign, from an address."""
    headers = {"Request-Ref": "r-1", "published-timestamp": TIME, "X-Forwarded-For": client}
    return Request(WEAVR + UNSIGNED, body, list(headers.items()))


def announcement(body: bytes) -> Request:
    """Return a signed announcement."""
    signature = hmac.digest(KEY.encode(), body, "sha256").hex()
    return Request(ECS, body, [("content-type", "application/json"), ("X-Signature", f"sha256={signature}")])


class Seen(NamedTuple):
    """Everything that a request led to."""

    answer: bytes
    published: list[OutgoingRecord]
    counted: Mapping[str, float]
    lines: list[Any]


class Way:
    """One ingress."""

    def __init__(self, here: Serving, publisher: MemoryPublisher) -> None:
        self.here = here
        self.publisher = publisher

    async def send(self, request: Request) -> Seen:
        """Return what a request leads to."""
        before = self._counts()
        self.publisher.published.clear()
        host, port = self.here.server.url.removeprefix("http://").rsplit(":", 1)
        with capture_logs(processors=[merge_contextvars]) as lines:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request.wire)
            answer = await self._one(reader) if request.whole else b""
            writer.write_eof()
            answer += await reader.read()
            writer.close()
            await self.here.ingress.limits.idle()
        self.here.ingress.refusal_log.flush()
        after = self._counts()
        counted = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
        date = re.compile(rb"Date: [^\r]*\r\n")
        for line in lines:
            line.pop("frames", None)  # the calls in between are not the same
        return Seen(date.sub(b"", answer), list(self.publisher.published), counted, lines)

    @staticmethod
    async def _one(reader: asyncio.StreamReader) -> bytes:
        """Return one answer, while the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        return head + (await reader.readexactly(int(length[1])) if length else b"")

    def _counts(self) -> dict[str, float]:
        return {
            f"{sample.name}{sample.labels}": sample.value
            for metric in self.here.metrics.registry.collect()
            for sample in metric.samples
            if sample.name.startswith("pipeline_ingress")
            and not sample.name.endswith(("_seconds_sum", "_seconds_bucket", "_created"))
            and sample.name != "pipeline_ingress_connections"
        }


@dataclass
class Both:
    """Both ways, and how publications go."""

    hot: Way
    plain: Way
    fails: list[Exception | None]

    async def compare(self, request: Request) -> Seen:
        """Return what a request leads to, on both ways."""
        hot, plain = await self.hot.send(request), await self.plain.send(request)
        assert hot == plain
        return hot

    @property
    def taken(self) -> int:
        """How many requests the hot path has answered."""
        return self.hot.here.ingress.hot_path.taken


@asynccontextmanager
async def both_ways(folder: Path, limits: IngressSettings = LIMITS) -> AsyncIterator[Both]:
    """Serve both ways while the block runs."""
    fails: list[Exception | None] = [None]

    async def before(_: OutgoingRecord) -> None:
        if fails[0] is not None:
            raise fails[0]

    async with AsyncExitStack() as stack:
        ways = []
        webhooks = _webhooks(folder)
        for used in (webhooks, [replace(webhook, hot=None) for webhook in webhooks]):
            publisher = MemoryPublisher(before)
            here = await stack.enter_async_context(
                serving(
                    publisher,
                    webhooks=used,
                    settings=limits,
                    clock=lambda: NOW,
                    new_hex=lambda number: "5a" * number,
                    refusals_interval=3600,
                )
            )
            ways.append(Way(here, publisher))
        yield Both(ways[0], ways[1], fails)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Request, Exception | None], Seen]]:
    """Both ways, for all examples."""
    with asyncio.Runner() as runner:
        manager = both_ways(tmp_path_factory.mktemp("hot"))
        both = runner.run(manager.__aenter__())

        def compare(request: Request, failure: Exception | None) -> Seen:
            both.fails[0] = failure
            return runner.run(both.compare(request))

        yield compare
        runner.run(manager.__aexit__(None, None, None))


FAILURES: Final = [
    Overloaded("sends_in_flight", "many"),
    TransientError("broker_unavailable", "gone", retry_after=7),
    RecordTooLarge("record_too_large", "large"),
    TimeoutError(),
    RuntimeError("nobody expects this"),
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["1", "007", TIME]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
texts = st.sampled_from(
    [
        b"", b"[]", b"{}", b"null", b"{", b"\xff{}", b'{"a":1,"a":2}', b'{"id":NaN}', b'{"id":1e999}',
        b'{"id":' + b"9" * 30 + b"}", b'{"a":' * 40 + b"1" + b"}" * 40, b'{"a":"\\ud800"}', b"payload=%7B%7D",
    ]
)  # fmt: skip
urls = st.sampled_from(
    [
        "", "https://files.example", "HTTPS://files.example/", "https://FILES.example/x", "http://files.example/",
        "https://files.example:443/", "https://files.example:8443/x", "https://a.below.example/",
        "https://user@files.example/",
        "https://files.example/#x", "https://files.example/a b", "https://files.example/\u00e9", "https://files.example\\@evil/",
        "https://files.example.evil/", "https://127.0.0.1/", "https://[::1]/", "https://files.example/\\x", "https:///x",
        "https://files.example:0/", "https://files.example:99999/", "https://files.example?x", " https://files.example/",
        "https://files.example/\n", "https://f\u0131les.example/", "https://files.example./",
    ]
)  # fmt: skip
times = st.sampled_from(
    [
        "2026-01-23T10:43:59Z", "2026-01-23 10:43:59+02:00", "2020-01-01T00:00:00Z", "2126-01-01T00:00:00Z",
        "2026-01-23T10:43:59", "1769121839", 1769121839, None, "1999-12-31T23:59:59Z", "2026-01-23T24:00:00Z",
        "2026-01-23t10:43:59.123456789z", "2026-01-23T10:43Z", "x2026-01-23T10:43:59Z",
    ]
)  # fmt: skip
more_headers = st.sampled_from(
    [
        ("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-For", "198.51.100.7, 127.0.0.3"),
        ("X-Forwarded-For", "?\xff"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), ("traceparent", "nonsense"),
        ("Connection", "close"), ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Expect", "100-continue"),
        ("Content-Encoding", "gzip"), ("Content-Encoding", "identity"), ("Content-Type", "text/plain"),
        ("Content-Type", "application/json; charset=utf-8"), ("Call-Ref", "ref-1"), ("X-Anything", "\xe9"),
        ("Signature", "legacy"), ("Signature-V2", "AAAA"),
        ("X-Signature", "sha256=00"), ("Transfer-Encoding", "chunked"),
        ("Content-Length", "5"), ("Content-Length", "30000"),
    ]
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, body: Mapping[str, Any], special: Mapping[str, st.SearchStrategy[Any]]) -> bytes:
    """Return a body: as it should be, with other values, or something else."""
    found = json.loads(json.dumps(body))
    way = draw(st.sampled_from(["valid", "valid", "changed", "special", "less", "more", "text"]))
    if way == "text":
        return draw(texts)
    holder, name = found, draw(st.sampled_from(sorted(found)))
    while isinstance(holder[name], dict) and holder[name] and draw(st.booleans()):
        holder = holder[name]
        name = draw(st.sampled_from(sorted(holder)))
    if way == "changed":
        holder[name] = draw(values)
    elif way == "special" and special:
        name = draw(st.sampled_from(sorted(special)))
        found[name] = draw(special[name])
    elif way == "less":
        del holder[name]
    elif way == "more":
        holder[draw(st.text(max_size=3))] = draw(values)
    written = json.dumps(found, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    before = draw(st.sampled_from([b"", b"", b"", b" ", b"\xef\xbb\xbf"]))
    return before + written.encode("utf-8", "surrogatepass")


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Return a request: ordinary, wrong or hostile."""
    if draw(st.booleans()):
        kind = draw(st.sampled_from([*SIGNED, UNSIGNED, UNSIGNED]))
        body = draw(bodies(body_of(kind, Random(draw(st.integers(0, 50)))), {}))  # noqa: S311 - synthetic
        old = str(int(TIME) - draw(st.sampled_from([0, 1, 17_999_999, 18_000_000, 18_000_001, -18_000_001])))
        at = draw(st.sampled_from([TIME, TIME, old, "", "x", f"00{TIME}", None]))
        reference = draw(st.sampled_from(["ref-1", "ref-1", "", None, "\xe9"]))
        request = event(kind, body, **{"call-ref": reference, "published-timestamp": at})
        if kind == UNSIGNED and draw(st.booleans()):
            request = unsigned_event(body, draw(st.sampled_from(["198.51.100.7", "198.51.100.7", "192.0.2.1", "?"])))
        other = [
            WEAVR,
            f"{WEAVR}/",
            f"{WEAVR}/login/watch?x=1",
            f"{WEAVR}//login/watch",
            f"{WEAVR}/%6Cogin/watch",
            "/x",
        ]
    else:
        special = {"expires_at": times} | {name: urls for name in ANNOUNCEMENT if name.endswith("_url")}
        request = announcement(draw(bodies(ANNOUNCEMENT, special)))
        other = [f"{ECS}/", f"{ECS}?x", f"/.{ECS}", f"{ECS}/x", ECS.upper()]
    way = draw(st.sampled_from(["as it is", "as it is", "head", "header", "without", "repeated", "case", "body"]))
    if way == "head":
        request.path = draw(st.sampled_from([request.path, *other]))
        request.method = draw(st.sampled_from(["POST", "post", "GET", "PUT", "OPTIONS"]))
        request.version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.0"]))
    elif way == "header":
        request.headers.append(draw(more_headers))
    elif way == "without":
        request.headers.remove(draw(st.sampled_from(request.headers)))
    elif way == "repeated":
        request.headers.append(draw(st.sampled_from(request.headers)))
    elif way == "case":
        change = draw(
            st.sampled_from([str.upper, str.lower, lambda text: f" {text}\t", lambda text: f"{text}, {text}"])
        )
        request.headers = [
            (change(name) if change is str.upper else name, change(value)) for name, value in request.headers
        ]
    elif way == "body":
        request.body += draw(st.sampled_from([b" ", b"x", b"\n"]))
        request.cut = draw(st.sampled_from([0, 0, 1]))
    return request


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(request=event("/login/watch", b'{"a":1,"a":2}'), failure=None)
@given(request=requests(), failure=st.sampled_from([None, None, None, *FAILURES]))
def test_both_ways_do_the_same(
    world: Callable[[Request, Exception | None], Seen], request: Request, failure: Exception | None
) -> None:
    """Status, headers and text of the answer, the record with its headers, metrics and log lines are equal."""
    world(request, failure)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("product", ["event", "announcement"])
async def test_a_failed_publication_is_answered_alike(tmp_path: Path, product: str, failure: Exception) -> None:
    """Here the hot path cannot leave the request to the plain way."""
    body = json.dumps(body_of("/login/watch", Random(1))).encode()  # noqa: S311 - synthetic
    request = event("/login/watch", body) if product == "event" else announcement(json.dumps(ANNOUNCEMENT).encode())
    async with both_ways(tmp_path) as both:
        both.fails[0] = failure
        seen = await both.compare(request)
        assert both.taken == 0
    assert not seen.answer.startswith(b"HTTP/1.1 20")
    assert not seen.published


async def test_ordinary_requests_take_the_hot_path(tmp_path: Path) -> None:
    """All kinds of events, and announcements; otherwise it could fall asleep unnoticed."""
    async with both_ways(tmp_path) as both:
        for number, path in enumerate(SIGNED):
            for seed in range(3):
                body = json.dumps(body_of(path, Random(seed))).encode()  # noqa: S311 - synthetic
                seen = await both.compare(event(path, body))
                assert seen.answer.startswith(b"HTTP/1.1 204 ")
                assert both.taken == 3 * number + seed + 1, path
        body = json.dumps(body_of(UNSIGNED, Random(1))).encode()  # noqa: S311 - synthetic
        for client, status in (("198.51.100.7", b"204"), ("198.51.100.8", b"204"), ("192.0.2.1", b"503")):
            seen = await both.compare(unsigned_event(body, client))
            assert seen.answer.startswith(b"HTTP/1.1 " + status)
        taken = both.taken
        assert taken == 3 * len(SIGNED) + 2
        for headers in ([], [("X-Forwarded-For", "198.51.100.7")], [("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01")]):
            request = announcement(json.dumps(ANNOUNCEMENT).encode())
            request.headers += headers
            seen = await both.compare(request)
            taken += 1
            assert seen.answer.startswith(b"HTTP/1.1 202 ")
            assert both.taken == taken
            assert len(seen.published) == 1


async def test_a_source_without_room_is_left_to_the_plain_way(tmp_path: Path) -> None:
    """Its refusal is written once."""
    request = announcement(json.dumps(ANNOUNCEMENT).encode())
    async with both_ways(tmp_path, LIMITS.model_copy(update={"source_requests_per_second": 1})) as both:
        answers = [(await both.compare(request)).answer.split(b"\r\n")[0] for _ in range(4)]
        assert both.taken == 2
    assert answers == [b"HTTP/1.1 202 Accepted"] * 2 + [b"HTTP/1.1 503 Service Unavailable"] * 2


async def test_a_publication_has_the_deadline_of_the_ingress(tmp_path: Path) -> None:
    """One timer ends all publications that take too long, each at its time, and cancels nothing else."""
    request = announcement(json.dumps(ANNOUNCEMENT).encode())
    async with both_ways(tmp_path, LIMITS.model_copy(update={"deadline_seconds": 0.1})) as both:
        for way in (both.hot, both.plain):
            way.publisher.before = lambda _: asyncio.sleep(60)
        seen = [*await asyncio.gather(*(both.hot.send(request) for _ in range(3))), await both.plain.send(request)]
        assert both.taken == 0
        for way in (both.hot, both.plain):
            way.publisher.before = MemoryPublisher().before
        assert (await both.compare(request)).answer.startswith(b"HTTP/1.1 202 ")
    assert {one.answer for one in seen} == {seen[-1].answer}
    assert seen[-1].answer.startswith(b"HTTP/1.1 503 ")


async def test_no_line_is_made_that_the_level_drops(tmp_path: Path) -> None:
    """The line of an accepted announcement is one of info."""
    request = announcement(json.dumps(ANNOUNCEMENT).encode())
    async with both_ways(tmp_path) as both:
        assert [line["event"] for line in (await both.compare(request)).lines] == ["webhook_accepted"]
        before = structlog.get_config()["wrapper_class"]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
        try:
            assert (await both.compare(request)).lines == []
        finally:
            structlog.configure(wrapper_class=before)
