"""Bodies built from Weavr's description alone, read by the models."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final, Literal

import pytest
from pydantic import ValidationError

from pipeline.contracts.weavr import (
    BY_PATH,
    ManagedCardsAuthorisationEvent,
    ManagedCardsCardPaymentEvent,
    WeavrEvent,
)
from pipeline.sandbox.weavr.bodies import body_of, planted
from pipeline.sandbox.weavr.facts import Field, weavr_kinds

PATHS: Final = sorted(weavr_kinds())
SEEDS: Final = range(8)
Fields = Literal["all", "required", "some"]


def rng(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - test data


def read(path: str, body: dict[str, Any]) -> WeavrEvent:
    """The event of a body, read as the ingress does; reading the bytes, as subscribers do, gives the same."""
    event = BY_PATH[path].model.model_validate(body)
    assert BY_PATH[path].model.model_validate_json(json.dumps(body)) == event
    return event


def locations(fields: tuple[Field, ...], body: dict[str, Any], *, required: bool) -> Iterator[tuple[Any, ...]]:
    """Where in a body the fields stand that are required, or are not."""
    for field in fields:
        if field.name in body:
            if field.required == required:
                yield (field.name,)
            yield from ((field.name, *rest) for rest in inner_locations(field, body[field.name], required=required))


def required_locations(path: str, body: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Where fields stand without which a body does not fit; not what is deprecated, whatever the description says."""
    fields = weavr_kinds()[path].body.fields
    return [location for location in locations(fields, body, required=True) if location != ("merchantName",)]


def inner_locations(field: Field, value: Any, *, required: bool) -> Iterator[tuple[Any, ...]]:
    if field.item and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from ((key, *rest) for rest in inner_locations(field.item, item, required=required))
    elif isinstance(value, dict):
        yield from locations(field.fields, value, required=required)


def holder(body: Any, location: tuple[Any, ...]) -> Any:
    for step in location[:-1]:
        body = body[step]
    return body


@pytest.mark.parametrize("fields", ["all", "required", "some"])
@pytest.mark.parametrize("path", PATHS)
def test_a_body_fits_and_comes_back_as_it_was(path: str, fields: Fields) -> None:
    """Names, values and their forms, with unknown fields and values, with everything and with the least."""
    for seed in SEEDS:
        body = body_of(path, rng(seed), fields=fields, new_fields=4, new_enum_values=True)
        assert read(path, body).as_received() == body


@pytest.mark.parametrize("path", PATHS)
def test_without_a_required_field_a_body_does_not_fit(path: str) -> None:
    """The finding names the field and no value."""
    made = planted(path, rng(1))
    for location in required_locations(path, made.body):
        body = copy.deepcopy(made.body)
        del holder(body, location)[location[-1]]
        with pytest.raises(ValidationError) as caught:
            BY_PATH[path].model.model_validate(body)
        assert [error["loc"] for error in caught.value.errors()] == [location]
        assert [marker for marker in made.markers if marker in str(caught.value)] == []


def test_a_deprecated_field_may_be_gone() -> None:
    """Otherwise all authorisations would go to quarantine on the day on which Weavr drops it."""
    path = "/managed_cards/authorisations/watch"
    body = body_of(path, rng(1))
    del body["merchantName"]
    assert read(path, body).as_received() == body


@pytest.mark.parametrize("path", PATHS)
def test_null_does_not_fit_a_required_field(path: str) -> None:
    made = body_of(path, rng(2))
    for location in required_locations(path, made):
        body = copy.deepcopy(made)
        holder(body, location)[location[-1]] = None
        with pytest.raises(ValidationError) as caught:
            BY_PATH[path].model.model_validate(body)
        assert [error["loc"] for error in caught.value.errors()] == [location]


@pytest.mark.parametrize("path", PATHS)
def test_null_fits_where_a_field_may_be_missing(path: str) -> None:
    made = body_of(path, rng(3))
    for location in locations(weavr_kinds()[path].body.fields, made, required=False):
        body = copy.deepcopy(made)
        holder(body, location)[location[-1]] = None
        assert read(path, body).as_received() == body


@pytest.mark.parametrize("path", PATHS)
def test_whether_a_number_is_written_as_text_makes_no_difference(path: str) -> None:
    """Ids, times and amounts in the form that the description names for another event."""
    body = body_of(path, rng(4))
    other = otherwise_written(body, BY_PATH[path].model.model_json_schema())
    event = read(path, other)
    assert event == read(path, body)
    assert event.as_received() == other


def otherwise_written(body: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """A body with numbers where text of digits stood, and text where numbers stood, as far as both fit."""

    def other(value: Any, node: dict[str, Any]) -> Any:
        node = node.get("anyOf", [node])[0]
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rpartition("/")[2]]
        if isinstance(value, dict):
            rest = node.get("additionalProperties")
            rest = rest if isinstance(rest, dict) else {}
            return {name: other(inner, node.get("properties", {}).get(name, rest)) for name, inner in value.items()}
        if isinstance(value, list):
            return [other(inner, node["items"]) for inner in value]
        if node.get("type") != ["string", "integer"]:
            return value
        if isinstance(value, int):
            return str(value)
        return int(value) if value.isdecimal() else value

    changed: dict[str, Any] = other(body, root)
    return changed


@pytest.mark.parametrize("path", PATHS)
def test_nothing_sensitive_is_in_a_representation(path: str) -> None:
    """Representations get into logs and tracebacks."""
    made = planted(path, rng(5))
    shown = repr(read(path, made.body))
    assert [marker for marker in made.markers if marker in shown] == []


def test_unknown_fields_are_not_in_a_representation() -> None:
    """They may hold anything."""
    body = {**body_of("/login/watch", rng(6)), "added": "unknown"}
    assert "unknown" not in repr(read("/login/watch", body))


def test_an_event_never_changes() -> None:
    event = read("/login/watch", body_of("/login/watch", rng(7)))
    with pytest.raises(ValidationError, match="frozen"):
        event.type = "other"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/corporates/kyb/watch", "details", "planted"),
        ("/corporates/kyb/watch", "details", {"no": "planted"}),
        ("/corporates/kyb/watch", "corporateEmail", 15),
        ("/corporates/kyb/watch", "corporateEmail", ["planted"]),
        ("/corporates/kyb/watch", "corporateId", 1.5),
        ("/corporates/kyb/watch", "status", True),
        ("/bulk_process_end/watch", "submittedItemsCount", "planted"),
        ("/bulk_process_end/watch", "submittedItemsCount", 2.0),
        ("/managed_cards/authorisations/watch", "approved", "true"),
        ("/managed_cards/authorisations/watch", "approved", 1),
        ("/managed_cards/authorisations/watch", "transactionTimestamp", "planted"),
        ("/managed_accounts/watch", "account", "planted"),
        ("/managed_accounts/watch", "account", ["planted"]),
    ],
)
def test_a_value_of_another_type_does_not_fit(path: str, name: str, value: object) -> None:
    """There is one finding, at the field, and it repeats nothing."""
    with pytest.raises(ValidationError) as caught:
        BY_PATH[path].model.model_validate({**body_of(path, rng(8)), name: value})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("kind", ["CARD_DISPUTE", "AUTHORISATION"])
def test_a_step_of_a_payment_needs_its_kind_alone(kind: str) -> None:
    """Shapes overlap and more may come: none of them keeps an event from fitting."""
    body = body_of("/managed_cards/payments/watch", rng(9))
    body["cardPayment"]["events"] = [{"type": kind, "new": {"shape": [1.5]}}]
    event = read("/managed_cards/payments/watch", body)
    assert isinstance(event, ManagedCardsCardPaymentEvent)
    assert [step.type for step in event.card_payment.events] == [kind]
    assert event.as_received() == body


@pytest.mark.parametrize("location", ["originator", "beneficiary"])
def test_whom_a_correspondent_bank_pays_may_have_any_shape(location: str) -> None:
    body = body_of("/correspondent_bank_transfers/watch", rng(10))
    body["transfer"][location] = {"wallet": "new", "name": None}
    assert read("/correspondent_bank_transfers/watch", body).as_received() == body


def test_names_that_python_would_write_otherwise() -> None:
    body = body_of("/managed_cards/authorisations/watch", rng(11))
    event = read("/managed_cards/authorisations/watch", body)
    assert isinstance(event, ManagedCardsAuthorisationEvent)
    assert event.merchant_data.merchant_url == body["merchantData"]["merchantURL"]
    assert event.transaction_amount.minor_units == int(body["transactionAmount"]["amount"])
    assert event.related_authorisation_ids == tuple(map(str, body["relatedAuthorisationIds"]))


def test_an_unknown_field_is_an_attribute_by_its_name_on_the_wire() -> None:
    body = {**body_of("/login/watch", rng(12)), "deviceModel": "new", "published_timestamp": "not ours"}
    event = read("/login/watch", body)
    assert event.deviceModel == "new"  # type: ignore[attr-defined]
    assert event.as_received() == body
