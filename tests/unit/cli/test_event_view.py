"""Bodies at a terminal: of all of Weavr's events nothing sensitive, and still something to look at."""

from __future__ import annotations

import gzip
import json
from random import Random
from typing import Any

import pytest

from pipeline.cli.event_view import masked_body
from pipeline.contracts import Record
from pipeline.contracts.weavr import KINDS, EventKind
from pipeline.sandbox.weavr.bodies import planted

AUTHORISATION = "weavr.managed_cards.authorisations"


def shown(kind: str, body: Any) -> Any:
    record = Record("card-events.x", 0, 0, "k", json.dumps(body).encode(), (("ce_type", kind.encode()),), 0)
    return masked_body(record)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_nothing_sensitive_of_any_event_is_shown(kind: EventKind) -> None:
    found = planted(kind.path, Random(7))  # noqa: S311 - of tests only
    text = json.dumps(shown(kind.type, found.body))
    assert [field for value, field in found.markers.items() if value in text] == []


def test_ids_and_times_stay_though_they_are_long_numbers() -> None:
    body = {
        "id": {"id": "109582479871279106", "type": "managed_cards"},
        "transactionId": "109582479871279105",
        "relatedAuthorisationIds": [109582479871279107],
        "transactionTimestamp": "1769121839295",
        "merchantName": "planted",
    }
    assert shown(AUTHORISATION, body) == body | {"merchantName": "[masked]"}


def test_a_card_number_where_a_reason_should_be_is_masked() -> None:
    assert shown(AUTHORISATION, {"declineReason": "4111 1111 1111 1111"}) == {"declineReason": "[digits]"}


@pytest.mark.parametrize("body", [[], "text", 7, None])
def test_a_body_that_is_no_object_shows_its_kind_alone(body: object) -> None:
    assert shown(AUTHORISATION, body) in {"(list of 0)", "(text)", "(number)", None}


def test_of_an_unknown_kind_the_outline_is_shown() -> None:
    body = {"a": "planted", "b": {"c": 1, "12345678": True}, "d": [1, 2], "e": None}
    assert shown("github.push", body) == {
        "a": "(text)",
        "b": {"c": "(number)", "(name)": "(boolean)"},
        "d": "(list of 2)",
        "e": None,
    }


@pytest.mark.parametrize(
    ("value", "headers", "body"),
    [
        (gzip.compress(b'{"a": "planted"}', mtime=0), {"content-encoding": b"gzip"}, {"a": "(text)"}),
        (b"payload=%7B%22a%22%3A1%7D", {"content-type": b"application/x-www-form-urlencoded"}, {"a": "(number)"}),
        (b'\xef\xbb\xbf{"a": "planted"}', {}, {"a": "(text)"}),
        (gzip.compress(b"{}", mtime=0)[:-1], {"content-encoding": b"gzip"}, None),
        (b"planted", {"content-encoding": b"br"}, None),
    ],
)
def test_a_body_is_read_as_its_headers_say(value: bytes, headers: dict[str, bytes], body: object) -> None:
    record = Record("webhook-events.x", 0, 0, "k", value, tuple(headers.items()), 0)
    assert masked_body(record) == body
