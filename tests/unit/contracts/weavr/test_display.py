"""What may be shown of an event."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import pytest

from pipeline.contracts.sensitive import is_sensitive
from pipeline.contracts.weavr import BY_PATH, masked
from pipeline.sandbox.weavr.bodies import body_of, planted

PATHS: Final = sorted(BY_PATH)
LOGIN: Final = BY_PATH["/login/watch"]
IBANS: Final = BY_PATH["/ibans/watch"]


def rng(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - test data


def expected(value: Any, name: str = "") -> Any:
    """What should be shown of a body without unknown fields."""
    if isinstance(value, dict):
        return {key: expected(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [expected(inner, name) for inner in value]
    return "[masked]" if is_sensitive(name) else value


@pytest.mark.parametrize("path", PATHS)
def test_known_values_stay_and_sensitive_ones_do_not(path: str) -> None:
    for seed in range(4):
        body = planted(path, rng(seed)).body
        assert masked(BY_PATH[path], body) == expected(body)


@pytest.mark.parametrize("path", PATHS)
def test_values_of_unknown_fields_are_not_shown(path: str) -> None:
    body = body_of(path, rng(5))
    body["added"] = body["planted"] = {"deep": ["planted"]}
    shown = masked(BY_PATH[path], body)
    assert (shown["added"], shown["planted"]) == ("[unknown]", "[unknown]")


def test_what_is_known_as_something_else_is_unknown() -> None:
    """A body that does not fit may have anything anywhere."""
    body = {"credential": "planted", "identity": ["planted"], "type": {"planted": 1}, "status": 1, "code": None}
    assert set(masked(LOGIN, body).values()) == {"[unknown]"}


def test_what_should_be_a_list_is_unknown_and_so_is_what_it_should_not_hold() -> None:
    shown = masked(IBANS, {"iban": {"bankAccountDetails": "planted", "id": True}})
    assert shown == {"iban": {"bankAccountDetails": "[unknown]", "id": "[unknown]"}}
    assert masked(IBANS, {"iban": {"bankAccountDetails": ["planted"]}}) == {
        "iban": {"bankAccountDetails": ["[unknown]"]}
    }


def test_null_is_shown_where_a_field_may_be_missing() -> None:
    assert masked(LOGIN, {"identity": None, "type": None}) == {"identity": None, "type": "[unknown]"}


def test_numbers_are_shown_where_numbers_may_stand() -> None:
    body = {"publishedTimestamp": 1769122000123, "credential": {"id": 9007199254740993, "type": "ROOT"}}
    assert masked(LOGIN, body) == body


@pytest.mark.parametrize(
    "name", ["4111111111111111", "ada@example.com", "Ada Example", "", "x" * 65, "naïve", "a1b2c3d4"]
)
def test_a_name_that_looks_like_none_is_not_shown(name: str) -> None:
    """A key may hold anything."""
    assert masked(LOGIN, {name: "x", f"{name} ": "y"}) == {"[unknown]": "[unknown]", "[unknown 2]": "[unknown]"}


def test_keys_of_maps_are_shown_by_the_same_rule() -> None:
    body = {"account": {"state": {"blockTypes": {"USER": 1, "4111111111111111": 2}}}}
    assert masked(BY_PATH["/managed_accounts/watch"], body) == {
        "account": {"state": {"blockTypes": {"USER": 1, "[unknown]": 2}}}
    }
