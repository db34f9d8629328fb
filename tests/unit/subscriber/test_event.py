from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.contracts import Headers, Record
from pipeline.contracts.weavr import BY_TYPE
from pipeline.errors import PoisonRecord
from pipeline.subscriber.event import Event, event_of_record
from pipeline.subscriber.models import MODELS


class Fee(BaseModel):
    amount: int
    names: dict[str, int] = {}


FEES: Mapping[str, type[BaseModel]] = {"acme.fee": Fee}
NAMED: Headers = (
    ("ce_id", b"1"),
    ("ce_type", b"acme.fee"),
    ("ce_subject", b"card/1"),
    ("ce_source", b"/webhooks/x/acme"),
    ("ce_time", b"2026-01-22T12:00:00.5Z"),
    ("content-type", b"application/json; charset=utf-8"),
    ("signature-v2", b"c2lnbmF0dXJl"),
)


def decode(value: bytes, headers: Headers = NAMED, models: Mapping[str, type[BaseModel]] = FEES) -> Event[Any]:
    return event_of_record(Record("webhook-events.acme", 2, 7, "k", value, headers, 1_000, 3), models)


def but(**changed: bytes | None) -> Headers:
    """The headers, with some changed or left out."""
    names = {name.replace("_", "-") if name == "content_type" else name: value for name, value in changed.items()}
    kept = [(name, value) for name, value in NAMED if name not in names]
    return (*kept, *((name, value) for name, value in names.items() if value is not None))


def test_an_event_has_what_the_record_says() -> None:
    event = decode(b'{"amount": 3}')
    assert event == Event(
        id="1",
        type="acme.fee",
        subject="card/1",
        time=datetime(2026, 1, 22, 12, 0, 0, 500_000, UTC),
        key="k",
        source="/webhooks/x/acme",
        data=Fee(amount=3),
        raw=b'{"amount": 3}',
        headers=NAMED,
        topic="webhook-events.acme",
        partition=2,
        offset=7,
        attempt=3,
        timestamp_ms=1_000,
    )


def test_its_representation_shows_nothing_of_what_it_holds() -> None:
    shown = repr(decode(b'{"amount": 4711}'))
    assert "4711" not in shown
    assert "c2lnbmF0dXJl" not in shown


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        (b"application/json", b"[1]", [1]),
        (b"application/cloudevents+JSON", b"{}", {}),
        (b"application/x-www-form-urlencoded", b"payload=%7B%22a%22%3A1%7D", {"a": 1}),
        (b"application/x-www-form-urlencoded", b"a=1&b=&b=%C3%A9", {"a": "1", "b": ["", "\xe9"]}),
        (b"application/json", b"\xef\xbb\xbf[1]", [1]),
        (b"application/xml", b"<a/>", None),
        (None, b"{}", None),
    ],
)
def test_without_a_model_data_is_the_json_value_or_none(content_type: bytes | None, body: bytes, data: Any) -> None:
    event = decode(body, but(content_type=content_type), {})
    assert (event.data, event.raw) == (data, body)


@pytest.mark.parametrize("headers", [but(ce_id=None), but(ce_type=None), but(ce_id=b""), ()])
def test_a_record_without_id_or_type_is_no_event(headers: Headers) -> None:
    with pytest.raises(PoisonRecord, match="event_not_named"):
        decode(b"{}", headers)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_what_says_that_it_is_json_and_is_not_is_poison(body: bytes) -> None:
    with pytest.raises(PoisonRecord, match="event_not_json"):
        decode(body, NAMED, {})


def test_a_body_that_does_not_fit_is_poison_and_the_reason_holds_no_value() -> None:
    body = b'{"amount": "4111111111111111x", "names": {"4111 1111": "y"}}'
    with pytest.raises(PoisonRecord) as raised:
        decode(body)
    assert raised.value.message == "The body does not fit Fee: amount: int_parsing; names.?: int_parsing."
    assert raised.value.__context__ is None


@pytest.mark.parametrize("time", [b"yesterday", None])
def test_without_a_readable_time_it_is_the_records(time: bytes | None) -> None:
    assert decode(b"{}", but(ce_time=time), {}).time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_a_time_always_has_a_zone() -> None:
    assert decode(b"{}", but(ce_time=b"2026-01-22T12:00:00"), {}).time == datetime(2026, 1, 22, 12, tzinfo=UTC)


def test_a_record_time_that_no_calendar_has_does_no_harm() -> None:
    record = Record("t", 0, 0, "k", b"{}", but(ce_time=None), 2**62)
    assert event_of_record(record, {}).time.year == 9999


def test_a_version_that_the_models_do_not_read_is_put_aside() -> None:
    """It is taken up again, from the dead letters, after an update of this library."""
    kind = BY_TYPE["weavr.fees"]
    headers = but(ce_type=kind.type.encode(), ce_dataschema=kind.dataschema.encode() + b"9")
    with pytest.raises(PoisonRecord, match="event_version_unknown"):
        decode(b"{}", headers, MODELS)
    with pytest.raises(PoisonRecord, match="event_unfit"):
        decode(b"{}", but(ce_type=kind.type.encode(), ce_dataschema=kind.dataschema.encode()), MODELS)


def test_a_model_of_ones_own_reads_every_version() -> None:
    headers = but(ce_type=b"weavr.fees", ce_dataschema=b"urn:another")
    assert decode(b'{"amount": 1}', headers, {"weavr.fees": Fee}).data == Fee(amount=1)


_TOKENS = (
    *(b"{ } [ ] , : 0 -1 1e5 1.5 -0 1e400 NaN -Infinity true null 123456789012345678901234567890".split()),
    *(b'"a" "a" "b" "\\ud800" "\\u00e9" "\\ud83d\\ude00" "\\x" a \xff \xed\xa0\x80 \x00'.split(b" ")),
    *(b" ", b"\xef\xbb\xbf", b"[" * 150, b"]" * 150, '"é"'.encode()),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.one_of(
        JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.lists(st.sampled_from(_TOKENS), max_size=9).map(b"".join),
        st.binary(max_size=12),
    )
)
def test_without_a_model_the_data_are_what_pythons_json_reads(body: bytes) -> None:
    """Or the event is poison, exactly where Python's reader refuses the body."""
    plain = re.sub(rb"\A(?:\xef\xbb\xbf)*", b"", body)
    try:
        expected = repr(json.loads(plain))
    except ValueError:
        with pytest.raises(PoisonRecord, match="JSON") as caught:
            decode(body, but(ce_type=b"acme.other"))
        assert caught.value.code == "event_not_json"
    else:
        assert expected == repr(decode(body, but(ce_type=b"acme.other")).data)


def test_of_headers_with_one_name_the_first_says_what_the_event_is() -> None:
    event = decode(b'{"amount": 3}', (*NAMED, ("ce_id", b"2"), ("ce_type", b"acme.other"), ("content-type", b"x/y")))
    assert ("1", "acme.fee", Fee(amount=3)) == (event.id, event.type, event.data)
