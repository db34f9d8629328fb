from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.contracts import Topic, event_id
from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.outbound import HostRules
from pipeline.webhooks.sources import EcsSource, Identified, Policy, WebhookRequest

GUID = "cffde776-1d2a-4614-8023-a5148e411462"
SEED: dict[str, Any] = {
    "job_guid": GUID,
    "partner_reference_id": "integrator-merchant1-location-002",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": ["46691", "32049", "30730"],
    "record_count": 200,
    "input_file_url": f"https://bucket.s3.us-east-1.amazonaws.com/x/{GUID}/input.csv?X-Amz-SignedHeaders=host&x-id=GetObject",
    "result_upload_url": f"https://bucket.s3.us-east-1.amazonaws.com/x/{GUID}/output.csv?x-amz-checksum-crc32=AAAAAA%3D%3D",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": f"https://ecs.example.com/api/reporting/v1/partner/batch-jobs/{GUID}/result-uploaded",
}
HOSTS = HostRules(
    input=("*.s3.us-east-1.amazonaws.com",), result=("*.s3.us-east-1.amazonaws.com",), callback=("ecs.example.com",)
)
SOURCE = EcsSource("acme", HOSTS)


def _body(**changes: Any) -> bytes:
    return json.dumps(SEED | changes).encode()


def _identified(body: bytes, source: EcsSource = SOURCE) -> Identified:
    return source.identify(WebhookRequest("", (), body))


def _findings(body: bytes, source: EcsSource = SOURCE) -> tuple[Finding, ...]:
    with pytest.raises(InvalidBody) as caught:
        _identified(body, source)
    return caught.value.findings


def test_example_of_the_documentation_is_identified() -> None:
    body = _body()
    found = _identified(body)
    assert found.topic is Topic.BATCH_REQUESTED
    assert found.key == f"acme/{GUID}"
    assert found.id == event_id("acme", GUID, body)
    assert found.type == "card-batch.requested"
    assert found.subject == GUID == str(found.job_guid)
    assert found.facts == {
        "merchant_guid": SEED["merchant_guid"],
        "record_count": 200,
        "expires_at": "2026-01-22T22:43:59.295000+00:00",
    }


def test_same_body_is_the_same_event_and_a_renewed_one_another() -> None:
    renewed = _body(expires_at="2026-01-23T22:43:59.295Z")
    assert _identified(_body()).id == _identified(_body()).id
    assert _identified(_body()).id != _identified(renewed).id
    assert _identified(_body()).key == _identified(renewed).key
    assert _identified(_body(), EcsSource("other", HOSTS)).id != _identified(_body()).id


def test_spelling_of_the_guid_does_not_change_the_key() -> None:
    assert _identified(_body(job_guid=GUID.upper())).key == f"acme/{GUID}"


def test_unknown_fields_are_accepted() -> None:
    job = SOURCE.announcement(_body(smart_track={"source": 7}))
    assert job.model_extra == {"smart_track": {"source": 7}}


@pytest.mark.parametrize("expires_at", ["2001-01-01T00:00:00Z", "2026-01-22T22:43:59+05:30", "2026-01-22 22:43Z"])
def test_any_time_with_a_zone_is_accepted_even_if_past(expires_at: str) -> None:
    assert _identified(_body(expires_at=expires_at)).subject == GUID


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("job_guid", "4711", "guid"),
        ("job_guid", 4711, "guid"),
        ("job_guid", None, "guid"),
        ("job_guid", "", "guid"),
        ("merchant_guid", "", "guid"),
        ("partner_reference_id", 5, "text"),
        ("partner_reference_id", "x" * 1025, "too_long"),
        ("external_location_ids", "46691", "array"),
        ("external_location_ids", ["1"] * 10_001, "too_many"),
        ("record_count", -1, "too_small"),
        ("record_count", "200", "integer"),
        ("record_count", 200.0, "integer"),
        ("record_count", True, "integer"),
        ("record_count", None, "integer"),
        ("expires_at", "2026-01-22T22:43:59", "timestamp_zone"),
        ("expires_at", "2026-01-22", "timestamp_zone"),
        ("expires_at", "1769121839", "timestamp"),
        ("expires_at", 1769121839, "timestamp"),
        ("expires_at", None, "timestamp"),
        ("expires_at", "tomorrow", "timestamp"),
        ("expires_at", "2026-13-01T00:00:00Z", "timestamp"),
        ("input_file_url", 5, "text"),
        ("input_file_url", "", "url_malformed"),
        ("input_file_url", "https://b.s3.us-east-1.amazonaws.com/a b", "url_malformed"),
        ("input_file_url", "ftp://b.s3.us-east-1.amazonaws.com/a", "url_scheme"),
        ("input_file_url", "https://u:p@b.s3.us-east-1.amazonaws.com/a", "url_userinfo"),
        ("input_file_url", "https://b.s3.us-east-1.amazonaws.com/a#b", "url_fragment"),
        ("input_file_url", "https://127.1/a", "url_host"),
        ("input_file_url", "https://b.s3.us-east-1.amazonaws.com:0/a", "url_port"),
        ("input_file_url", "https://evil.example/a", "host_not_allowed"),
        ("input_file_url", "https://" + "x" * 8190, "too_long"),
        ("result_upload_url", "https://s3.us-east-1.amazonaws.com.evil.example/a", "host_not_allowed"),
        ("callback_url", "https://bucket.s3.us-east-1.amazonaws.com/cb", "host_not_allowed"),
        ("callback_url", "http://ecs.example.com/cb", "url_http_not_allowed"),
    ],
)
def test_each_broken_rule_names_field_rule_and_remedy(field: str, value: Any, rule: str) -> None:
    (finding,) = _findings(_body(**{field: value}))
    assert (finding.field, finding.rule) == (field, rule)
    assert finding.remedy.startswith("Send ")


def test_listed_address_is_refused_while_private_ones_are() -> None:
    hosts = HOSTS.model_copy(update={"callback": ("127.0.0.1",)})
    (finding,) = _findings(_body(callback_url="https://127.0.0.1/cb"), EcsSource("acme", hosts))
    assert finding == Finding("callback_url", "address_not_allowed", "Send a URL with a public host")
    allowed = hosts.model_copy(update={"allow_private": True})
    assert _identified(_body(callback_url="https://127.0.0.1/cb"), EcsSource("acme", allowed)).subject == GUID


def test_plain_http_is_accepted_where_allowed() -> None:
    hosts = HOSTS.model_copy(update={"allow_http": True})
    assert _identified(_body(callback_url="http://ecs.example.com/cb"), EcsSource("acme", hosts)).subject == GUID


def test_every_missing_field_is_named() -> None:
    assert {(finding.field, finding.rule) for finding in _findings(b"{}")} == {(field, "required") for field in SEED}


def test_several_broken_rules_are_reported_at_once_each_field_once() -> None:
    body = _body(job_guid="x", expires_at="1e9", callback_url="https://evil.example/")
    assert [finding.field for finding in _findings(body)] == ["job_guid", "expires_at", "callback_url"]


def test_wrong_element_is_named_by_its_index() -> None:
    (finding,) = _findings(_body(external_location_ids=["1", 2]))
    assert (finding.field, finding.rule) == ("external_location_ids.1", "text")


def test_number_of_findings_is_bounded() -> None:
    assert len(_findings(_body(external_location_ids=[0] * 5000))) == 20


def test_the_error_holds_nothing_received() -> None:
    planted = "4111111111111111"
    body = _body(
        job_guid=planted,
        partner_reference_id=int(planted),
        record_count=planted,
        expires_at=planted,
        input_file_url=f"https://{planted}.example/?X-Amz-Signature={planted}",
        callback_url=f"https://user:{planted}@ecs.example.com/",
    )
    with pytest.raises(InvalidBody) as caught:
        _identified(body)
    assert planted not in f"{caught.value!r} {caught.value} {caught.value.findings}"
    assert caught.value.__cause__ is None


def test_body_that_is_no_strict_json_is_invalid() -> None:
    (finding,) = _findings(_body()[:-1] + b', "job_guid": "x"}')
    assert (finding.field, finding.rule) == ("job_guid", "duplicate_key")


def test_invalid_bodies_have_their_own_topic() -> None:
    assert SOURCE.quarantine(WebhookRequest("", (), _body())) is Topic.BATCH_QUARANTINE


def test_invalid_announcements_are_refused_and_accepted_ones_audited() -> None:
    """ECS takes any success status that was agreed on; what it sends wrongly it can send again."""
    assert EcsSource("acme", HOSTS, 204).policy == Policy(
        success=204, unverified=401, invalid="refuse", any_media_type=False, below=False, audit_accepted=True
    )
