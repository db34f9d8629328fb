"""Bodies agree with Weavr's description, read here again from the file: path by path, not by the tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

import pipeline.sandbox.weavr
from pipeline.sandbox.weavr import NEW_ENUM_VALUE, body_of, entity_in, planted, weavr_kinds
from pipeline.sandbox.weavr.bodies import Fields

FACTS = json.loads((Path(str(pipeline.sandbox.weavr.__file__)).parent / "events.json").read_text("utf-8"))
PATHS = sorted(FACTS["events"])
ABOVE_DOUBLES = 2**53


def rng(seed: int = 1) -> Random:
    return Random(seed)  # noqa: S311 - test data


def found(value: Any, path: str) -> Iterator[Any]:
    """Give the values at a flattened path, one for each object that could have it; absent as ``Ellipsis``."""
    step, _, rest = path.partition(".")
    name = step.rstrip("[]{}")
    if name not in value:
        if not rest:
            yield ...
        return
    inner = value[name]
    if not rest:
        yield inner
    elif step.endswith("[]"):
        for one in inner:
            yield from found(one, rest)
    elif step.endswith("{}"):
        for one in inner.values():
            yield from found(one, rest)
    else:
        yield from found(inner, rest)


def rows(rows: list[dict[str, Any]], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Give the rows of an event and, below them, those of the common types that they refer to."""
    for row in rows:
        yield {**row, "path": prefix + row["path"]}
        ref = re.search(r"object `(\w+)`", row["type"])
        if (
            ref
            and ref[1] in FACTS["common_types"]
            and not any(one["path"].startswith(row["path"] + ".") for one in rows)
        ):
            end = {"a": "[]", "m": "{}"}.get(row["type"][0], "")
            yield from rows_of(ref[1], f"{prefix}{row['path']}{end}.")


def rows_of(type_name: str, prefix: str) -> Iterator[dict[str, Any]]:
    return rows(FACTS["common_types"][type_name], prefix)


def fits(row: Mapping[str, Any], value: Any) -> bool:
    """Tell whether a value is of the type of its row, and matches its pattern, length and enum."""
    text, constraint = row["type"], row["constraint"]
    if text.startswith("array of "):
        single = {**row, "type": text.removeprefix("array of ")}
        return isinstance(value, list) and len(value) > 0 and all(fits(single, one) for one in value)
    if text.startswith("map<"):
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    kinds = {"string": str, "integer": int, "boolean": bool, "object": dict}
    if type(value) is not kinds[re.split(r"[ (]", text)[0]]:
        return False
    if isinstance(value, str):
        pattern = re.search(r"pattern `(.*?)`(?:;|$)", constraint)
        length = re.search(r"len (\d+)\.\.(\d+)", constraint)
        values = re.findall(r"`([^`]+)`", constraint.partition(";")[0]) if constraint.startswith("enum") else []
        return (
            (not pattern or "…" in pattern[1] or re.search(pattern[1].replace(r"\|", "|"), value) is not None)
            and (not length or int(length[1]) <= len(value) <= int(length[2]))
            and (not values or value in values)
        )
    return True


@pytest.mark.parametrize("path", PATHS)
def test_every_field_of_the_description_is_in_a_full_body(path: str) -> None:
    body = body_of(path, rng())
    for row in rows(FACTS["events"][path]["fields"]):
        values = list(found(body, row["path"]))
        assert values, row
        assert ... not in values, row


@pytest.mark.parametrize("fields", ["all", "some", "required"])
@pytest.mark.parametrize("path", PATHS)
def test_values_are_of_type_pattern_length_and_enum_and_the_required_ones_are_there(path: str, fields: Fields) -> None:
    """With every choice of fields, and beside new fields."""
    for seed in range(20):
        body = body_of(path, rng(seed), fields=fields, new_fields=seed % 3)
        for row in rows(FACTS["events"][path]["fields"]):
            for value in found(body, row["path"]):
                assert fits(row, value) if value is not ... else not row["required"], (row, value)


@pytest.mark.parametrize("path", PATHS)
def test_required_fields_alone(path: str) -> None:
    body = body_of(path, rng(), fields="required")
    top = {row["path"] for row in FACTS["events"][path]["fields"] if row["required"] and "." not in row["path"]}
    assert set(body) == top


def test_the_same_generator_makes_the_same_bodies() -> None:
    made = [[body_of(path, one, fields="some") for path in PATHS] for one in (rng(7), rng(7))]
    assert made[0] == made[1]


def test_ids_and_lists_of_ids_are_above_what_doubles_hold() -> None:
    body = body_of("/managed_cards/settlements/watch", rng())
    ids = [body["id"]["id"], body["transactionId"], *body["relatedAuthorisationIds"], *body["relatedSettlementIds"]]
    assert all(int(one) > ABOVE_DOUBLES for one in ids)
    assert [type(one) for one in body["relatedAuthorisationIds"]] == [int] * len(body["relatedAuthorisationIds"])


def test_times_are_texts_or_numbers_as_the_description_says() -> None:
    account = body_of("/linked_accounts/watch", rng())
    assert type(account["linkedAccount"]["creationTimestamp"]) is int
    assert type(account["publishedTimestamp"]) is str


def test_alternatives_are_all_made_and_follow_their_discriminator() -> None:
    """Events of a payment by their type, results of a check by its category."""
    events: dict[str, set[str]] = {}
    results: dict[str, set[str]] = {}
    for seed in range(200):
        payment = body_of("/managed_cards/payments/watch", rng(seed))["cardPayment"]
        for event in payment["events"]:
            events.setdefault(event["type"], set()).update(event)
        for outcome in body_of("/correspondent_bank_transfers/watch", rng(seed))["transfer"]["validationOutcomes"]:
            results.setdefault(outcome["category"], set()).update(outcome["categoryResult"])
    assert {kind: "result" in names for kind, names in events.items()} == {
        "AUTHORISATION": True,
        "SETTLEMENT": False,
        "REFUND": False,
        "ORIGINAL_CREDIT": False,
    }
    assert results == {
        "UK_CONFIRMATION_OF_PAYEE": {"match", "reasonCode", "accountName"},
        "SEPA_VERIFICATION_OF_PAYEE": {"match", "accountName"},
    }


def test_people_live_at_example_com_and_cards_are_of_no_issuer() -> None:
    for path in PATHS:
        for text in texts(body_of(path, rng())):
            assert "@" not in text or text.endswith("@example.com")
    assert body_of("/managed_cards/payments/watch", rng())["cardPayment"]["card"]["cardNumberFirstSix"] == "999999"


def test_an_iban_has_right_check_digits() -> None:
    iban = body_of("/outgoing_wire_transfers/watch", rng())["transfer"]["destination"]["sepa"]["iban"]
    moved = "".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])
    assert int(moved) % 97 == 1


@pytest.mark.parametrize("path", PATHS)
def test_the_entity_is_where_the_event_names_it(path: str) -> None:
    """Even where no field is required."""
    body = body_of(path, rng(), fields="required", entity="99112233445566778")
    mail = "99112233445566778@example.com"
    assert entity_in(path, body) in {"99112233445566778", mail}
    assert (entity_in(path, body) == mail) == ("emailAddress" in body)


def test_a_body_without_entity_says_so() -> None:
    assert entity_in("/corporates/kyb/beneficiaries/watch", {}) == ""


def test_one_id_is_always_of_one_instrument() -> None:
    """Otherwise the fees of one card would have two keys."""
    types = {
        body_of("/fees/watch", rng(seed), entity="99112233445566778")["chargeFee"]["source"]["type"]
        for seed in range(9)
    }
    assert types == {"managed_accounts"}


@pytest.mark.parametrize("path", PATHS)
def test_new_fields_are_added_and_nothing_else_changes(path: str) -> None:
    old, new = body_of(path, rng(3)), body_of(path, rng(3), new_fields=2)
    assert without_added(new) == old
    assert json.dumps(new).count('"sandboxAdded') == 2


def test_one_enum_gets_a_value_that_nobody_knows() -> None:
    """Where there is one; the types that decide what an id or an alternative is stay."""
    numbers = {path: json.dumps(body_of(path, rng(), new_enum_values=True)).count(NEW_ENUM_VALUE) for path in PATHS}
    none = {"/manual_transactions/watch", "/managed_accounts/low_balance/watch"}
    assert numbers == {path: int(path not in none) for path in PATHS}


@pytest.mark.parametrize("path", PATHS)
def test_planted_markers_stand_where_they_are_said_to(path: str) -> None:
    """The body still fits the description."""
    made = planted(path, rng())
    for marker, field in made.markers.items():
        value: Any = made.body
        for step in field.split("."):
            value = value[int(step) if isinstance(value, list) else step]
        assert value == marker
    for row in rows(FACTS["events"][path]["fields"]):
        assert all(fits(row, value) for value in found(made.body, row["path"]))


def test_tokens_addresses_and_names_are_planted() -> None:
    fields = {field.rpartition(".")[2] for path in PATHS for field in planted(path, rng()).markers.values()}
    assert {
        "authToken",
        "emailAddress",
        "addressLine1",
        "postCode",
        "contactNumber",
        "nameOnCard",
        "iban",
        "accountNumber",
        "dateOfBirth",
        "senderName",
    } <= fields


def test_an_unknown_path_is_an_error() -> None:
    with pytest.raises(KeyError):
        body_of("/managed_cards/nothing/watch", rng())


def test_the_description_has_32_kinds_in_18_categories_and_one_without_signature() -> None:
    kinds = weavr_kinds().values()
    assert (len(kinds), len({kind.category for kind in kinds})) == (32, 18)
    assert [kind.path for kind in kinds if not kind.signed] == ["/bulk_process_end/watch"]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def without_added(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_added(one) for key, one in value.items() if not key.startswith("sandboxAdded")}
    return [without_added(one) for one in value] if isinstance(value, list) else value
