"""Weavr's requests: what they are, and what proves them. Signatures are openssl's."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.contracts import Headers, Topic, event_id
from pipeline.contracts.strict_json import InvalidBody
from pipeline.contracts.weavr import KINDS
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.webhooks.sources import Policy, WeavrSource, WeavrVerifier, WebhookRequest
from pipeline.webhooks.sources.settings import WeavrOptions
from pipeline.webhooks.verification import Fault, Reason, Secret, SignatureRefused

PATH = "/managed_cards/authorisations/watch"
UNSIGNED = "/bulk_process_end/watch"
BODY = '{"id":{"id":"109876543210987654","type":"managed_cards"},"note":"Zoë"}'.encode()
EVENT = json.dumps(body_of(PATH, Random(5))).encode()  # noqa: S311 - synthetic, the same each time
CARD = json.loads(EVENT)["id"]["id"]
TIME = b"1769121839123"
NOW = datetime.fromtimestamp(1769121840, UTC)
WITHOUT_CALL_REF = b"YnkuPBLiBUfnwmx9FngyohUGWe9zBmxyGHQkccZKiEs="
WITH_CALL_REF = b"0tyBm/LZY2byFcWJ/ViPQMzyXmwPwM5Trb6BSIpj0iA="
LEGACY = b"WwLBsI4MZmZTjA4W4e0BzXxAylEj4RvV/Xh2FPNOtk4="
KEY = Secret("oldest-client", SecretStr("synthetic-api-key-1"))
SEGMENT = "synthetic-path-segment-1"
SIGNED: Headers = (("published-timestamp", TIME), ("call-ref", b"ref-001"), ("signature-v2", WITH_CALL_REF))
UNREFERENCED: Headers = (("published-timestamp", TIME), ("signature-v2", WITHOUT_CALL_REF))


def _options(**changes: Any) -> WeavrOptions:
    return WeavrOptions.model_validate(changes)


def _source(**changes: Any) -> WeavrSource:
    return WeavrSource("acme", _options(**changes))


def _verifier(**changes: Any) -> WeavrVerifier:
    return WeavrVerifier(_options(**changes), [KEY])


def _refusal(verifier: WeavrVerifier, delivery: WebhookRequest) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        verifier.verify(delivery, NOW)
    return caught.value.reason


def _kept(path: str, body: bytes) -> InvalidBody:
    with pytest.raises(InvalidBody) as caught:
        _source().identify(WebhookRequest(path, SIGNED, body))
    return caught.value


def _findings(delivery: WebhookRequest) -> list[tuple[str, str]]:
    with pytest.raises(InvalidBody) as caught:
        _source().identify(delivery)
    return [(finding.field, finding.rule) for finding in caught.value.findings]


def test_an_event_is_what_its_path_says() -> None:
    """Topic, key, type, subject and schema follow from path and body."""
    found = _source().identify(WebhookRequest(PATH, SIGNED, EVENT))
    assert found.topic is Topic.EVENTS_MANAGED_CARDS
    assert found.key == f"acme/card/{CARD}"
    assert found.type == "weavr.managed_cards.authorisations"
    assert found.subject == f"card/{CARD}"
    assert found.dataschema == "urn:card-pipeline:schema:weavr.managed_cards.authorisations:v1"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_every_kind_is_identified(kind: Any) -> None:
    body = json.dumps(body_of(kind.path, Random(7))).encode()  # noqa: S311 - synthetic
    found = _source().identify(WebhookRequest(kind.path, SIGNED, body))
    assert (found.topic, found.type) == (kind.topic, kind.type)
    assert found.key == f"acme/{found.subject}"


def test_the_call_and_the_body_are_the_identity() -> None:
    """A repeat with a new timestamp is the same event as long as its call-ref stays."""
    again = (("published-timestamp", b"1769121999999"), ("call-ref", b"ref-001"))
    found = _source().identify(WebhookRequest(PATH, SIGNED, EVENT))
    assert found.id == event_id("acme", PATH, b"ref-001", EVENT)
    assert _source().identify(WebhookRequest(PATH, again, EVENT)).id == found.id


@pytest.mark.parametrize("call_ref", [(), (("call-ref", b""),)])
def test_without_a_call_ref_the_time_of_publication_is_part_of_it(call_ref: Headers) -> None:
    """Two events can be equal byte for byte, so the body alone never is the identity."""
    found = _source().identify(WebhookRequest(PATH, (*call_ref, ("published-timestamp", TIME)), EVENT))
    assert found.id == event_id("acme", PATH, "", TIME, EVENT)


def test_the_same_body_on_another_path_or_for_another_call_is_another_event() -> None:
    other_call = (("published-timestamp", TIME), ("call-ref", b"ref-002"))
    ids = {
        _source().identify(WebhookRequest(PATH, SIGNED, EVENT)).id,
        _source().identify(WebhookRequest(PATH, other_call, EVENT)).id,
        _kept("/managed_cards/settlements/watch", EVENT).id,
    }
    assert len(ids) == 3


def test_the_request_ref_of_a_bulk_process_plays_the_part_of_the_call_ref() -> None:
    headers = (("request-ref", b"bulk-1"), ("call-ref", b"other"), ("published-timestamp", TIME))
    body = json.dumps({"bulkId": "7"}).encode()
    source = _source()
    try:
        found = source.identify(WebhookRequest(UNSIGNED, headers, body)).id
    except InvalidBody as invalid:
        found = invalid.id or ""
    assert found == event_id("acme", UNSIGNED, b"bulk-1", body)


def test_an_unknown_path_is_kept_with_the_identity_that_it_will_have() -> None:
    """When the kind is added to the table, the release is the same event as a repeat by Weavr."""
    with pytest.raises(InvalidBody) as caught:
        _source().identify(WebhookRequest("/novelties/watch", SIGNED, BODY))
    assert [(one.field, one.rule) for one in caught.value.findings] == [("path", "unknown_path")]
    assert caught.value.id == event_id("acme", "/novelties/watch", b"ref-001", BODY)


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (b"", ("", "not_json")),
        (b"\xff", ("", "not_utf8")),
        (b"[]", ("", "not_an_object")),
        (b'{"id": 1, "id": 2}', ("id", "duplicate_key")),
        (b'{"4111111111111111": 1, "4111111111111111": 2}', ("?", "duplicate_key")),
    ],
)
def test_a_body_that_two_readers_could_understand_differently_is_kept(body: bytes, finding: tuple[str, str]) -> None:
    assert _findings(WebhookRequest(PATH, SIGNED, body)) == [finding]


@pytest.mark.parametrize(
    ("path", "topic"),
    [
        (PATH, Topic.EVENTS_QUARANTINE),
        ("/novelties/watch", Topic.EVENTS_QUARANTINE),
        ("/stepup/watch", Topic.EVENTS_STEPUP_QUARANTINE),
        ("/stepup/v2/watch", Topic.EVENTS_STEPUP_QUARANTINE),
        ("/step_up/watch", Topic.EVENTS_STEPUP_QUARANTINE),
        ("/challenges/Step-Up/watch", Topic.EVENTS_STEPUP_QUARANTINE),
    ],
)
def test_what_may_hold_a_token_has_a_quarantine_of_its_own(path: str, topic: Topic) -> None:
    assert _source().quarantine(WebhookRequest(path, (), b"")) is topic


def test_nothing_that_weavr_sends_is_lost_for_an_answer_of_ours() -> None:
    assert _source().policy == Policy(
        success=204, unverified=503, invalid="keep", any_media_type=True, below=True, audit_accepted=False
    )


def test_the_signature_covers_call_ref_body_and_time() -> None:
    assert _verifier().verify(WebhookRequest(PATH, SIGNED, BODY), NOW).by == "oldest-client"
    assert _verifier().verify(WebhookRequest(PATH, UNREFERENCED, BODY), NOW).path == PATH


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (SIGNED[1:], Reason.TIMESTAMP_MISSING),
        (SIGNED[:2], Reason.HEADER_MISSING),
        ((*SIGNED[1:], ("published-timestamp", b"1769121839124")), Reason.NOT_VERIFIED),
        ((*SIGNED, ("call-ref", b"ref-001")), Reason.HEADER_REPEATED),
        ((*SIGNED, ("signature-v2", WITH_CALL_REF)), Reason.HEADER_REPEATED),
        ((*SIGNED, ("published-timestamp", TIME)), Reason.TIMESTAMP_REPEATED),
        ((SIGNED[0], SIGNED[2]), Reason.NOT_VERIFIED),
    ],
)
def test_what_is_not_signed_by_a_known_key_is_refused(headers: Headers, reason: Reason) -> None:
    assert _refusal(_verifier(), WebhookRequest(PATH, headers, BODY)) is reason


def test_neither_the_path_nor_the_seam_of_call_ref_and_body_is_signed() -> None:
    """Weavr's scheme, not ours (docs/explanation/security.md): what was cut elsewhere is no JSON, so no event."""
    verifier = _verifier()
    assert verifier.verify(WebhookRequest("/managed_cards/settlements/watch", SIGNED, BODY), NOW).by
    rest = tuple(header for header in SIGNED if header[0] != "call-ref")
    moved = WebhookRequest(PATH, rest, b"ref-001" + BODY)
    assert verifier.verify(moved, NOW).by
    assert _findings(moved) == [("", "not_json")]


def test_another_body_is_not_verified() -> None:
    assert _refusal(_verifier(), WebhookRequest(PATH, SIGNED, BODY + b" ")) is Reason.NOT_VERIFIED


def test_a_retry_of_four_hours_later_is_fresh_and_one_of_six_is_not() -> None:
    """Retries go on for 4 h 19 min and may keep the first timestamp."""
    delivery = WebhookRequest(PATH, SIGNED, BODY)
    assert _verifier().verify(delivery, datetime.fromtimestamp(1769121840 + 15_600, UTC)).by == "oldest-client"
    with pytest.raises(SignatureRefused) as caught:
        _verifier().verify(delivery, datetime.fromtimestamp(1769121840 + 6 * 3600, UTC))
    assert caught.value.reason is Reason.TIMESTAMP_TOO_OLD


def test_a_missing_call_ref_is_refused_where_configured() -> None:
    verifier = _verifier(missing_call_ref="refuse")
    assert _refusal(verifier, WebhookRequest(PATH, UNREFERENCED, BODY)) is Reason.HEADER_MISSING
    assert verifier.verify(WebhookRequest(PATH, SIGNED, BODY), NOW).by == "oldest-client"


def test_the_legacy_signature_counts_only_where_configured_and_says_what_it_proves() -> None:
    legacy = WebhookRequest(PATH, (("published-timestamp", TIME), ("signature", LEGACY)), b"any body")
    assert _refusal(_verifier(), legacy) is Reason.HEADER_MISSING
    assert _verifier(legacy_signature=True).verify(legacy, NOW).by == "oldest-client (timestamp only)"


def test_a_right_legacy_signature_does_not_replace_a_wrong_new_one() -> None:
    headers = (*SIGNED, ("signature", LEGACY))
    verifier = _verifier(legacy_signature=True)
    assert _refusal(verifier, WebhookRequest(PATH, headers, b"forged")) is Reason.NOT_VERIFIED


def test_headers_that_verify_and_identify_are_kept() -> None:
    names = {"call-ref", "request-ref", "published-timestamp", "signature-v2"}
    assert _verifier().stored_headers == names
    assert _verifier(legacy_signature=True).stored_headers == names | {"signature"}


def test_an_unsigned_path_that_nobody_named_is_our_own_fault() -> None:
    """It is answered so that it comes again: a fix of the configuration loses nothing."""
    assert _refusal(_verifier(), WebhookRequest(UNSIGNED, (), b"{}")) is Reason.UNSIGNED_PATH
    assert Reason.UNSIGNED_PATH.fault is Fault.CONFIGURATION


def _address_rule() -> dict[str, Any]:
    return {"unsigned_paths": [{"path": UNSIGNED, "source_addresses": ["192.0.2.0/24", "2001:db8::/32"]}]}


@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7"])
def test_an_unsigned_path_is_taken_from_the_addresses_that_are_named(client: str) -> None:
    verified = _verifier(**_address_rule()).verify(WebhookRequest(UNSIGNED, (), b"{}", client), NOW)
    assert (verified.by, verified.path) == ("source-address", UNSIGNED)


@pytest.mark.parametrize("client", ["198.51.100.7", "-"])
def test_an_unsigned_path_is_not_taken_from_elsewhere(client: str) -> None:
    assert _refusal(_verifier(**_address_rule()), WebhookRequest(UNSIGNED, (), b"{}", client)) is Reason.NOT_VERIFIED


def test_an_address_proves_nothing_about_a_signed_path() -> None:
    assert _refusal(_verifier(**_address_rule()), WebhookRequest(PATH, (), b"{}", "192.0.2.7")) is Reason.HEADER_MISSING


@pytest.mark.parametrize("name", ["request-ref", "published-timestamp"])
def test_a_repeated_header_of_an_unsigned_path_is_refused(name: str) -> None:
    delivery = WebhookRequest(UNSIGNED, ((name, b"1"), (name, b"1")), b"{}", "192.0.2.7")
    assert _refusal(_verifier(**_address_rule()), delivery) is Reason.HEADER_REPEATED


def test_an_unsigned_path_may_be_protected_by_the_secret_segment() -> None:
    verifier = _verifier(
        path_secret=SEGMENT,
        unsigned_paths=[{"path": UNSIGNED, "require_path_secret": True, "source_addresses": ["192.0.2.7"]}],
    )
    verified = verifier.verify(WebhookRequest(f"/{SEGMENT}{UNSIGNED}", (), b"{}", "192.0.2.7"), NOW)
    assert (verified.by, verified.path) == ("source-address+path-secret", UNSIGNED)
    for path in (UNSIGNED, f"/wrong-segment{UNSIGNED}"):
        assert _refusal(verifier, WebhookRequest(path, (), b"{}", "192.0.2.7")) is Reason.NOT_VERIFIED
    assert _refusal(verifier, WebhookRequest(f"/{SEGMENT}{UNSIGNED}", (), b"{}", "192.0.2.8")) is Reason.NOT_VERIFIED


@pytest.mark.parametrize("before", [f"/{SEGMENT}", "", "/an-older-segment"])
def test_a_signed_event_needs_no_secret_segment_and_its_path_never_holds_one(before: str) -> None:
    """The signature decides; after a change of the segment deliveries may still come by the old URL."""
    verified = _verifier(path_secret=SEGMENT).verify(WebhookRequest(f"{before}{PATH}", SIGNED, BODY), NOW)
    assert verified.path == PATH


def test_the_secret_segment_is_taken_off_an_unknown_path_too() -> None:
    verifier = _verifier(path_secret=SEGMENT)
    assert verifier.verify(WebhookRequest(f"/{SEGMENT}/novelties/watch", SIGNED, BODY), NOW).path == "/novelties/watch"
    assert verifier.verify(WebhookRequest("/novelties/watch", SIGNED, BODY), NOW).path == "/novelties/watch"


@pytest.mark.parametrize("before", ["/", f"/{SEGMENT}/", f"//{SEGMENT}", f"//{SEGMENT}//"])
def test_a_slash_at_the_end_of_the_base_url_changes_no_event(before: str) -> None:
    """The path would be unknown otherwise, with the segment in it, and no release could ever fix that."""
    verified = _verifier(path_secret=SEGMENT).verify(WebhookRequest(f"{before}{PATH}", SIGNED, BODY), NOW)
    assert verified.path == PATH
    assert (
        _verifier(**_address_rule()).verify(WebhookRequest(f"/{UNSIGNED}", (), b"{}", "192.0.2.7"), NOW).path
        == UNSIGNED
    )


@pytest.mark.parametrize(
    "path", [f"/{SEGMENT}/{SEGMENT}{PATH}", f"{PATH}/{SEGMENT}", f"/novelties/{SEGMENT}/watch", f"/{SEGMENT}"]
)
def test_no_stored_path_holds_the_secret_segment(path: str) -> None:
    """Nor does it protect an unsigned path from the end, where no document says to put it."""
    verifier = _verifier(path_secret=SEGMENT, unsigned_paths=[{"path": UNSIGNED, "require_path_secret": True}])
    assert SEGMENT not in verifier.verify(WebhookRequest(path, SIGNED, BODY), NOW).path
    assert _refusal(verifier, WebhookRequest(f"{UNSIGNED}/{SEGMENT}", (), b"{}")) is Reason.NOT_VERIFIED


def test_an_outdated_segment_before_a_named_path_brings_its_events_again() -> None:
    """401 would lose them for good; so it is before the paths that are in the table."""
    verifier = _verifier(path_secret=SEGMENT, unsigned_paths=[{"path": "/new/watch", "require_path_secret": True}])
    assert _refusal(verifier, WebhookRequest("/an-older-segment/new/watch", (), b"{}")) is Reason.NOT_VERIFIED


def test_a_kind_that_weavr_adds_without_a_signature_can_be_named_too() -> None:
    verifier = _verifier(unsigned_paths=[{"path": "/novelties/watch", "source_addresses": ["192.0.2.7"]}])
    assert verifier.verify(WebhookRequest("/novelties/watch", (), b"{}", "192.0.2.7"), NOW).by == "source-address"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unsigned_paths": [{"path": UNSIGNED}]}, "nothing protects /bulk_process_end/watch"),
        ({"unsigned_paths": [{"path": PATH, "source_addresses": ["192.0.2.7"]}]}, "is signed by Weavr"),
        ({"unsigned_paths": [{"path": UNSIGNED, "require_path_secret": True}]}, "name it by path_secret_file"),
        ({"unsigned_paths": [{"path": UNSIGNED, "source_addresses": ["192.0.2.7"]}] * 2}, "names a path twice"),
        ({"path_secret": "short"}, "16 to 128"),
        ({"path_secret": "has/a/slash/in/between"}, "16 to 128"),
    ],
)
def test_options_that_protect_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        _options(**options)
    assert str(options.get("path_secret", "no-secret-here")) not in str(caught.value)


def test_an_address_in_a_key_is_hashed() -> None:
    """An e-mail address is personal: the hash in the key hides it from a glance."""
    path = "/corporates/corporate_activated/watch"
    body = body_of(path, Random(5)) | {"emailAddress": "zoe@example.com"}  # noqa: S311 - synthetic
    found = _source().identify(WebhookRequest(path, SIGNED, json.dumps(body).encode()))
    assert found.key == f"acme/corporate-email/{hashlib.sha256(b'zoe@example.com').hexdigest()[:16]}"


def test_an_event_that_does_not_fit_its_model_is_kept_with_its_identity() -> None:
    """The reasons name fields and rules, never a value."""
    kept = _kept(PATH, BODY)
    assert kept.id == event_id("acme", PATH, b"ref-001", BODY)
    assert ("transactionId", "required") in [(one.field, one.rule) for one in kept.findings]
    assert "109876543210987654" not in f"{kept} {kept.findings}"


@pytest.mark.parametrize(
    ("path", "headers", "client", "expected"),
    [
        (PATH, SIGNED, "192.0.2.7", None),
        (PATH, (), "192.0.2.7", Reason.HEADER_MISSING),
        (PATH, SIGNED[1:], "192.0.2.7", Reason.TIMESTAMP_MISSING),
        (UNSIGNED, (), "192.0.2.7", None),
        (UNSIGNED, (), "198.51.100.7", Reason.NOT_VERIFIED),
        (f"/{SEGMENT}/novelties/watch", (), "192.0.2.7", Reason.HEADER_MISSING),
    ],
)
def test_the_head_decides_before_the_body_is_read(
    path: str, headers: Headers, client: str, expected: Reason | None
) -> None:
    """About an unsigned path it decides completely: no body is read from an address that is not named."""
    verifier = _verifier(path_secret=SEGMENT, **_address_rule())
    assert _of_head(verifier, WebhookRequest(path, headers, b"", client)) is expected


def test_the_head_of_an_unsigned_path_that_nobody_named_is_our_own_fault() -> None:
    assert _of_head(_verifier(), WebhookRequest(UNSIGNED, (), b"")) is Reason.UNSIGNED_PATH


def _of_head(verifier: WeavrVerifier, head: WebhookRequest) -> Reason | None:
    try:
        verifier.check_head(head, NOW)
    except SignatureRefused as refused:
        return refused.reason
    return None
