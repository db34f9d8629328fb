"""What the ingress answers to requests that nobody wrote: schemathesis makes them from ``schemas/openapi.json``.

Each is signed as its sender would, so that its body is reached. ``make fuzz`` tries many more of them.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Queue
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.openapi import bundled_document

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.contracts.weavr import KINDS
from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks.testing import API_KEY, SECRET, ecs_webhook, serving, weavr_webhook

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES: Final = max(5, settings().max_examples // 20)
"""Of each operation; the profile decides."""
TRIED: Final = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
SCHEMA: Final = schemathesis.openapi.from_dict(bundled_document())
_FOUND: Final[list[Any]] = list(SCHEMA.get_all_operations())
OPERATIONS: Final = {one.ok().label: one.ok() for one in _FOUND}
MODES: Final = tuple(schemathesis.GenerationMode)


@dataclass(frozen=True)
class Target:
    """An ingress in a thread of its own, and what it published."""

    url: str
    published: list[OutgoingRecord]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    publisher = MemoryPublisher()
    unsigned = [{"path": kind.path, "source_addresses": ["127.0.0.0/8"]} for kind in KINDS if not kind.signed]
    webhooks = [ecs_webhook(), weavr_webhook(unsigned_paths=unsigned)]
    url: Queue[str] = Queue()
    stop = threading.Event()

    async def serve() -> None:
        async with serving(publisher, webhooks=webhooks) as here:
            url.put(here.server.url)
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    yield Target(url.get(timeout=10), publisher.published)
    stop.set()
    thread.join()


def _signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request with what its sender would add."""
    body = request.body or b""
    assert isinstance(body, bytes | str)
    data = body.encode() if isinstance(body, str) else body
    now = str(int(time.time() * 1000))
    call_ref = str(request.headers.get("call-ref", "")).strip(" \t").encode("latin-1")
    digest = hmac.digest(API_KEY.encode(), call_ref + data + now.encode(), "sha256")
    request.headers["X-Webhook-Secret"] = SECRET
    request.headers["published-timestamp"] = now
    request.headers["signature-v2"] = base64.b64encode(digest).decode()
    return request


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_breaks_the_document(label: str, target: Target) -> None:
    """The document describes each answer; a success has one record of the body as received, a refusal has none."""
    operation = OPERATIONS[label]
    fixed: dict[str, Any] = {"path_parameters": {"integration": "acme"}}
    cases = st.one_of(*(operation.as_strategy(mode, **fixed) for mode in MODES))
    session = requests.Session()

    @TRIED
    @given(case=cases)
    def tried(case: schemathesis.Case[Any]) -> None:
        target.published.clear()
        prepared = _signed(session.prepare_request(requests.Request(**_request(case, target.url))))
        response = session.send(prepared, timeout=10)
        case.validate_response(response, checks=CHECKS)
        kept = [one.value for one in target.published if one.topic is not Topic.AUDIT_EVENTS]
        assert kept == ([prepared.body or b""] if response.ok or response.status_code == 422 else [])

    with session:
        tried()


def _request(case: schemathesis.Case[Any], url: str) -> dict[str, Any]:
    known = {"method", "url", "headers", "params", "data", "json", "files", "cookies"}
    return {name: value for name, value in case.as_transport_kwargs(base_url=url).items() if name in known}
