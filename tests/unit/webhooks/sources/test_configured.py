"""Sources that need configuration only."""

from __future__ import annotations

import gzip
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.contracts import Headers, Topic, event_id
from pipeline.contracts.bodies import BodyTooLarge
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.sources import Identified, Policy, WebhookRequest
from pipeline.webhooks.sources.configured import Hmac, StandardWebhooks
from pipeline.webhooks.sources.settings import EventAttributes, HmacOptions, StandardWebhooksOptions
from pipeline.webhooks.verification import Secret, SignatureRefused

EVENT = {"id": "evt_1", "type": "paid", "account": {"id": 42}, "odd": {"a/b~c": "deep"}, "list": ["x"]}
BODY = json.dumps(EVENT).encode()
NOW = datetime(2026, 1, 22, tzinfo=UTC)
ATTRIBUTES = {"id": "json:/id", "type": "json:/type", "key": "json:/account/id"}


def _identify(event: dict[str, Any], body: bytes = BODY, headers: Headers = (), **options: Any) -> Identified:
    settings = HmacOptions.model_validate({"event": event, **options})
    return Hmac().source("shop", settings).identify(WebhookRequest("", headers, body))


def _invalid(event: dict[str, Any], body: bytes = BODY, headers: Headers = ()) -> InvalidBody:
    with pytest.raises(InvalidBody) as caught:
        _identify(event, body, headers)
    return caught.value


def test_the_named_values_identify_an_event() -> None:
    found = _identify(ATTRIBUTES)
    assert found == Identified(
        topic="webhook-events.shop",
        key="shop/42",
        id=event_id("shop", "evt_1"),
        type="shop.paid",
        subject="42",
        facts={"event_type": "paid"},
        subject_in_logs=False,
    )


def test_a_form_that_no_subscriber_can_read_is_no_event() -> None:
    """It has too many fields. Without a type in it, too, it is kept in quarantine."""
    request = WebhookRequest("", (), b"a&" * 1001, content_type="application/x-www-form-urlencoded")
    source = Hmac().source("shop", HmacOptions.model_validate({"event": {"type": ["json:/type", "text:event"]}}))
    with pytest.raises(InvalidBody, match="too_many"):
        source.identify(request)


def test_the_named_values_may_be_headers() -> None:
    headers = (("x-id", b"7"), ("x-type", b"sold"), ("x-shop", b"north"))
    found = _identify({"id": "header:X-Id", "type": "header:X-Type", "key": "header:X-Shop"}, b"no json", headers)
    assert (found.id, found.type, found.key) == (event_id("shop", "7"), "shop.sold", "shop/north")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        (["json:/nothing", "json:/account/id"], "shop/42"),
        (["json:/odd/a~1b~0c"], "shop/deep"),
        (["json:/list/0"], "shop/x"),
        (["json:/account", "header:X-None"], "shop"),
        ([], "shop"),
    ],
)
def test_the_first_value_that_a_request_has_is_used(values: list[str], key: str) -> None:
    """Without any the key is that of the source: its events stay in order."""
    assert _identify(ATTRIBUTES | {"key": values}).key == key


@pytest.mark.parametrize("value", [None, True, 1.5, "", {}, []])
def test_only_text_and_whole_numbers_are_ids(value: Any) -> None:
    body = json.dumps(EVENT | {"account": {"id": value}}).encode()
    assert _identify(ATTRIBUTES, body).key == "shop"


def test_a_long_key_is_shortened_to_its_digest() -> None:
    body = json.dumps(EVENT | {"account": {"id": "x" * 257}}).encode()
    assert _identify(ATTRIBUTES, body).key == f"shop/{event_id('x' * 257)}"


@pytest.mark.parametrize("what", ["id", "type", "key"])
def test_a_header_with_two_values_is_kept_and_one_that_is_doubled_is_taken(what: str) -> None:
    """No signature covers it: a proxy may double it, but who adds a second value must not choose the event's id."""
    values = ATTRIBUTES | {what: "header:X-What"}
    assert _identify(values, headers=(("x-what", b"1"), ("x-what", b"1"))) == _identify(
        values, headers=(("x-what", b"1"),)
    )
    kept = _invalid(values, headers=(("x-what", b"1"), ("x-what", b"2")))
    assert [(one.field, one.rule) for one in kept.findings] == [("headers", "header_repeated")]
    assert kept.id == event_id("shop", BODY, b"")


def test_a_type_may_be_the_same_for_all() -> None:
    assert _identify({"type": ["json:/kind", "text:changed"]}).type == "shop.changed"
    assert _identify({}).type == "shop.event"


def test_without_an_id_the_body_is_the_identity() -> None:
    assert _identify({}).id == event_id("shop", BODY, b"")


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"signed": ["timestamp", "body"], "timestamp": "header:X-Time"}, (("x-time", b"99"),)),
        (
            {
                "header": "X-Sig",
                "fields": {"signature": "v1", "timestamp": "t"},
                "signed": ["timestamp", "body"],
                "timestamp": "field",
            },
            (("x-sig", b"t=99,v1=ab"),),
        ),
        (
            {
                "header": "X-Sig",
                "prefix": "V ",
                "fields": {"signature": "v1", "timestamp": "t"},
                "signed": ["timestamp", "body"],
                "timestamp": "field",
            },
            (("x-sig", b"V t=99, v1=ab"),),
        ),
    ],
)
def test_without_an_id_the_time_of_signing_is_part_of_it(options: dict[str, Any], headers: Headers) -> None:
    """Two events can be equal byte for byte."""
    assert _identify({}, BODY, headers, **options).id == event_id("shop", BODY, b"99")
    assert _identify({}, BODY, (), **options).id == event_id("shop", BODY, b"")


def test_an_event_without_a_type_is_kept() -> None:
    kept = _invalid(ATTRIBUTES | {"type": "json:/kind"})
    assert [(one.field, one.rule) for one in kept.findings] == [("type", "required")]
    assert kept.id == event_id("shop", "evt_1")


@pytest.mark.parametrize(
    ("body", "rule"), [(b"planted", "not_json"), (b'{"type": 1, "type": 2}', "duplicate_key"), (b"[]", "not_an_object")]
)
def test_a_body_that_is_not_understood_is_kept_where_the_type_is_in_it(body: bytes, rule: str) -> None:
    kept = _invalid(ATTRIBUTES, body)
    assert [one.rule for one in kept.findings] == [rule]
    assert kept.id == event_id("shop", body, b"")
    assert "planted" not in str(kept)


def test_a_type_that_is_too_long_is_kept() -> None:
    assert _invalid(ATTRIBUTES, json.dumps({"type": "x" * 257}).encode()).findings[0].field == "type"


def test_nothing_is_refused_for_what_it_is() -> None:
    source = Hmac().source("shop", HmacOptions())
    assert source.quarantine(WebhookRequest("", (), b"")) is Topic.WEBHOOK_QUARANTINE
    assert source.policy == Policy(
        success=200, unverified=401, invalid="keep", any_media_type=True, below=False, audit_accepted=False
    )


def test_headers_of_signature_and_attributes_are_stored() -> None:
    options = HmacOptions.model_validate({"event": {"id": ["header:X-Id", "json:/id"], "type": "text:x"}})
    verifier = Hmac().verifier("shop", options, [Secret("k", SecretStr("synthetic"))])
    assert verifier.stored_headers == {"x-webhook-signature", "x-id"}


def test_standard_webhooks_needs_no_attributes() -> None:
    """The vector is that of the specification's reference library; it was checked with openssl."""
    secret = Secret("k", SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    options = StandardWebhooksOptions()
    headers = (
        ("webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", b"1614265330"),
        ("webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    )
    delivery = WebhookRequest("", headers, b'{"test": 2432232314}')
    verifier = StandardWebhooks().verifier("svc", options, [secret])
    now = datetime.fromtimestamp(1614265331, UTC)
    assert verifier.verify(delivery, now).by == "k"
    assert verifier.stored_headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    found = StandardWebhooks().source("svc", options).identify(delivery)
    assert (found.type, found.id) == ("svc.event", event_id("svc", "msg_p5jXN8AQM9LWM0D4loKWxJek"))


@pytest.mark.parametrize("value", ["field", "body:/x", "json:x", "header:a b", "text:", "text:a b", ""])
def test_what_names_no_value_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        EventAttributes.model_validate({"type": value})
    with pytest.raises(ValidationError):
        EventAttributes.model_validate({"id": value})


def test_an_id_cannot_be_the_same_for_all() -> None:
    with pytest.raises(ValidationError):
        EventAttributes.model_validate({"id": "text:same"})


@pytest.mark.parametrize("level", [1, 9])
def test_without_an_id_the_identity_is_the_same_however_the_body_is_compressed(level: int) -> None:
    headers = (("content-encoding", b"gzip"), ("content-type", b"application/json"))
    request = WebhookRequest.received("", headers, gzip.compress(BODY, level, mtime=level))
    found = Hmac().source("shop", HmacOptions.model_validate({"event": {"type": "json:/type"}})).identify(request)
    assert (found.id, found.type) == (event_id("shop", BODY, b""), "shop.paid")


def test_a_body_that_cannot_be_expanded_is_kept_under_the_id_of_its_bytes() -> None:
    request = WebhookRequest.received("", (("content-encoding", b"br"),), BODY)
    with pytest.raises(InvalidBody) as caught:
        Hmac().source("shop", HmacOptions.model_validate({"event": {"type": "text:event"}})).identify(request)
    assert [one.rule for one in caught.value.findings] == ["content_encoding"]
    assert caught.value.id == event_id("shop", BODY, b"")


def _signed(body: bytes, signed: bytes) -> WebhookRequest:
    signature = hmac.digest(b"synthetic", signed, "sha256").hex().encode()
    return WebhookRequest.received("", (("x-webhook-signature", signature), ("content-encoding", b"gzip")), body)


@pytest.mark.parametrize("options", [HmacOptions(signed_body="plain"), HmacOptions()])
def test_which_bytes_are_signed_is_an_option(options: HmacOptions) -> None:
    verifier = Hmac().verifier("shop", options, [Secret("k", SecretStr("synthetic"))])
    packed = gzip.compress(BODY)
    right, wrong = (BODY, packed) if options.signed_body == "plain" else (packed, BODY)
    assert verifier.verify(_signed(packed, right), NOW).by == "k"
    with pytest.raises(SignatureRefused, match="not_verified"):
        verifier.verify(_signed(packed, wrong), NOW)


def test_an_expansion_that_the_signature_needs_is_bounded() -> None:
    verifier = Hmac().verifier("shop", HmacOptions(signed_body="plain"), [Secret("k", SecretStr("synthetic"))])
    request = replace(_signed(gzip.compress(bytes(3000)), b""), most_bytes=2000)
    with pytest.raises(BodyTooLarge):
        verifier.verify(request, NOW)
    with pytest.raises(SignatureRefused, match="body_encoding"):
        verifier.verify(replace(request, body=request.body[:-9], most_bytes=4000), NOW)
