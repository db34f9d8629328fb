"""What `config check` finds beyond single keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.jobs.part_encryption import new_part_key
from pipeline.settings import Settings, part_key_problems
from pipeline.settings.review import review

ACME: dict[str, Any] = {
    "partner_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "webhook": {"scheme": "hmac", "secrets": [{"file": "w"}]},
    "callback": {"token_file": "/nowhere/token"},
    "hosts": {"input": ["a.example"], "result": ["a.example"], "callback": ["a.example"]},
}
KAFKA = {"bootstrap_servers": "a:1"}
KEY = {"id": "1", "file": "/nowhere/part-key"}


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"kafka": KAFKA, "ecs": {"acme": ACME}, "parts": {"keys": [KEY]}} | changes)


def test_good_settings_have_no_problem() -> None:
    assert review(settings()).problems == ()


def test_jobs_need_a_key_for_their_parts_unless_somebody_says_otherwise() -> None:
    (problem,) = review(settings(parts={})).problems
    assert problem == (
        "parts.keys: names no key, and parts hold card data; make one with openssl rand -base64 32 and write "
        'keys = [{ id = "1", file = "secrets/part-key" }] under [parts]. Or write encryption = "off" there to store '
        "parts in clear."
    )
    assert review(settings(parts={}, ecs={})).problems == ()
    found = review(settings(parts={"encryption": "off"}))
    assert found.problems == ()
    assert [one for one in found.warnings if one.startswith("parts.")] == [
        (
            'parts.encryption: is "off", so the store holds unencrypted card numbers in the parts of a job until it is '
            "confirmed; set parts.keys and remove parts.encryption, unless the store's own encryption is enough for you"
        )
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "no file exists at this path"),
        ("", "is empty"),
        ("MDEyMzQ1Njc4OWFiY2RlZg==\n", "must hold 32 random bytes in base64 (44 characters)"),
        ("30313233343536373839616263646566" * 2, "must hold 32 random bytes in base64 (44 characters)"),
        ("a password of some length, that is no key", "must hold 32 random bytes in base64 (44 characters)"),
    ],
)
def test_the_files_of_keys_are_checked_and_never_quoted(content: str | None, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "part-key"
    if content is not None:
        file.write_text(content)
    (problem,) = part_key_problems(settings(parts={"keys": [{"id": "1", "file": str(file)}]}))
    assert problem.startswith(
        f"parts.keys.0.file: {fault}" if content is None else f"parts.keys.0.file: {file} {fault}"
    )
    assert not content or content.strip() not in problem
    file.write_text(f"{new_part_key()}\n")
    assert list(part_key_problems(settings(parts={"keys": [{"id": "1", "file": str(file)}]}))) == []


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(ValidationError, match="two keys have the same id"):
        settings(parts={"keys": [KEY, KEY]})


def test_receipts_must_outlive_every_topic_that_redelivers() -> None:
    found = review(settings(retention={"receipts_days": 3})).problems
    assert found[0] == (
        "retention.receipts_days: 3 days is not longer than the 3 days that card-batch.requested keeps a record, "
        "so a job could run twice; write e.g. receipts_days = 4"
    )
    assert len(found) == 7
    ecs = {"acme": ACME | {"limits": {"max_expiry_days": 2}}}
    assert review(settings(retention={"receipts_days": 8}, ecs=ecs)).problems == ()


def test_receipts_must_outlive_the_last_callback_and_its_redelivery() -> None:
    """Otherwise a callback that is retried for long finds no receipts, or is sent again without any."""
    ecs = {"acme": ACME | {"policies": {"callback_retry_seconds": 13 * 86_400}}}
    (problem,) = review(settings(ecs=ecs)).problems
    assert problem == (
        "ecs.acme.policies.callback_retry_seconds: a job's last callback may come 14 days (limits.max_expiry_days) and "
        "13 days after its announcement, and its record again for 3 days, but the store keeps receipts for 30 days "
        "only; lower one of the two, or write e.g. retention.receipts_days = 31"
    )
    assert review(settings(ecs=ecs, retention={"receipts_days": 31})).problems == ()


def test_audit_ids_are_remembered_as_long_as_events_may_come_again() -> None:
    assert review(settings(audit={"id_window_days": 9})).problems == (
        (
            "audit.id_window_days: 9 days is shorter than the 10 days within which an audit event may be "
            "repeated, so the log could hold it twice; write e.g. id_window_days = 10"
        ),
    )


def test_audit_ids_are_remembered_as_long_as_audited_webhooks_may_come_again() -> None:
    hub = {"preset": "github", "secrets": [{"file": "w"}], "retention_days": 30, "audit_accepted": True}
    (problem,) = review(settings(webhooks={"hub": hub})).problems
    assert problem.startswith("audit.id_window_days: 10 days is shorter than the 30 days within which")
    assert review(settings(webhooks={"hub": hub | {"audit_accepted": False}})).problems == ()


def test_processors_are_found_and_their_options_checked() -> None:
    other = ACME | {"processor": {"name": "nix"}}
    (problem,) = review(settings(ecs={"acme": other})).problems
    assert problem.startswith("ecs.acme.processor: There is no processor 'nix'. Installed: ")


def test_what_may_be_meant_so_is_a_warning() -> None:
    bare = {**ACME, "hosts": {"input": ["a.example"]}}
    assert review(Settings.model_validate({"ecs": {"acme": bare}})).warnings == (
        "kafka: is missing; only `pipeline dev` and `pipeline cards run` work without it",
        'ecs.acme.hosts.result: is empty, so every announcement is refused; write e.g. result = ["files.example.com"]',
        (
            "ecs.acme.hosts.callback: is empty, so every announcement is refused; "
            'write e.g. callback = ["files.example.com"]'
        ),
        "ecs.acme.callback.token_file: no file exists at this path yet",
    )


def test_no_integration_is_a_warning(tmp_path: Path) -> None:
    kafka = KAFKA | {"tls": {"ca_file": tmp_path}}
    assert review(Settings.model_validate({"kafka": kafka})).warnings == (
        "ecs: no integration is configured; run: pipeline integration new ecs NAME",
    )


def test_bounds_that_make_each_other_useless_are_warned_of() -> None:
    found = review(
        settings(
            ingress={"max_body_bytes": 1_000_000},
            watch={"interval_seconds": 30},
            ecs={"acme": ACME | {"callback": {"token_file": __file__}}},
        )
    )
    assert [warning.split(":")[0] for warning in found.warnings] == [
        "ingress.max_body_bytes",
        "ecs.acme.limits.deadline_margin_seconds",
    ]
