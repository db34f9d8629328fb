"""What a kind is called, and what an event of it is about."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any, Final

import pytest

from pipeline.contracts import SPECS, Topic
from pipeline.contracts.weavr import BY_PATH, BY_TYPE, KINDS
from pipeline.sandbox.weavr.bodies import body_of

PATHS: Final = sorted(BY_PATH)
ADDRESS: Final = "ada@example.com"


def rng(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - test data


def test_all_32_are_there_once() -> None:
    assert (len(KINDS), len(BY_PATH), len(BY_TYPE)) == (32, 32, 32)


def test_every_topic_of_events_has_a_kind() -> None:
    topics = {topic for topic in SPECS if topic.startswith("card-events.")} - {
        Topic.EVENTS_QUARANTINE,
        Topic.EVENTS_STEPUP_QUARANTINE,
    }
    assert {kind.topic for kind in KINDS} == topics


def test_tokens_have_a_topic_of_their_own() -> None:
    with_token = {kind.topic for kind in KINDS if "authToken" in kind.model.model_json_schema()["properties"]}
    assert with_token == {Topic.EVENTS_STEPUP}
    assert {kind.path for kind in KINDS if kind.topic == Topic.EVENTS_STEPUP} == {"/stepup/watch"}


def test_one_kind_is_not_signed() -> None:
    assert [kind.path for kind in KINDS if not kind.signed] == ["/bulk_process_end/watch"]


def test_names_follow_the_path() -> None:
    """A literal: subscribers and stored records rely on them."""
    kind = BY_PATH["/managed_cards/authorisations/watch"]
    assert (kind.type, kind.category) == ("weavr.managed_cards.authorisations", "managed-cards")
    assert kind.dataschema == "urn:card-pipeline:schema:weavr.managed_cards.authorisations:v1"


@pytest.mark.parametrize("path", PATHS)
def test_every_body_that_says_what_it_is_about_gets_a_key_of_it(path: str) -> None:
    """The id that the description puts there, or a hash in the place of an e-mail address."""
    body = body_of(path, rng(1), entity="1234567890123456789")
    subject = BY_PATH[path].subject(body)
    name, _, found = subject.partition("/")
    assert name
    if name.endswith("-email"):
        assert len(found) == 16
        assert "@" not in subject
    else:
        assert found == "1234567890123456789"
    assert BY_PATH[path].key("acme", body) == f"acme/{subject}"


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_does_not_say_has_its_type_as_subject(path: str) -> None:
    kind = BY_PATH[path]
    assert kind.subject({}) == kind.type


def test_an_identity_without_an_id_is_found_by_its_address() -> None:
    kind = BY_PATH["/corporates/kyb/watch"]
    digest = hashlib.sha256(ADDRESS.encode()).hexdigest()[:16]
    assert kind.subject({"corporateEmail": ADDRESS}) == f"corporate-email/{digest}"
    assert kind.subject({"corporateEmail": ADDRESS, "corporateId": "7"}) == "corporate/7"


@pytest.mark.parametrize(
    ("instrument", "expected"),
    [
        ({"id": "7", "type": "managed_cards"}, "card/7"),
        ({"id": "7", "type": "managed_accounts"}, "account/7"),
        ({"id": "7", "type": "wallets"}, "instrument/7"),
        ({"id": 9007199254740993}, "instrument/9007199254740993"),
    ],
)
def test_an_instrument_is_a_card_or_an_account(instrument: dict[str, Any], expected: str) -> None:
    assert BY_PATH["/manual_transactions/watch"].subject({"targetInstrument": instrument}) == expected


@pytest.mark.parametrize("found", [None, "", True, 1.5, ["7"], {"id": "7"}])
def test_what_is_no_id_is_none(found: object) -> None:
    kind = BY_PATH["/login/watch"]
    assert kind.subject({"credential": {"id": found}}) == kind.type
    assert kind.subject({"credential": found}) == (kind.type if not isinstance(found, dict) else "credential/7")


def test_an_id_that_is_too_long_for_a_key_is_hashed() -> None:
    """A key, a subject and a partition key as long as the body would make a record that no broker takes."""
    kind = BY_PATH["/login/watch"]
    assert kind.subject({"credential": {"id": "7" * 256}}) == "credential/" + "7" * 256
    expected = hashlib.sha256(b"7" * 257).hexdigest()[:16]
    assert kind.subject({"credential": {"id": "7" * 257}}) == f"credential/{expected}"
