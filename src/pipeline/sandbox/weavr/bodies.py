"""Bodies of Weavr's events. They are built only from ``events.json``, so that they can reveal faults of the models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final, Literal

from pipeline.sandbox.weavr.facts import Field, weavr_kinds
from pipeline.sandbox.weavr.values import iban, value_of

Fields = Literal["all", "required", "some"]
NEW_ENUM_VALUE: Final = "SANDBOX_NEW_VALUE"
"""A value that is in no enum of the description."""

_SHARES: Final[Mapping[Fields, float]] = {"all": 1.0, "some": 0.5, "required": 0.0}
_Build = Callable[[Random, float], Any]

_CARD: Final = "managed_cards"
_ACCOUNT: Final = "managed_accounts"
_ENTITY_FIELDS: Final[Mapping[str, str]] = {
    "/corporates/kyb/watch": "corporateId",
    "/corporates/kyb/beneficiaries/watch": "additionalInformation.corporateId",
    "/corporates/corporate_activated/watch": "emailAddress",
    "/corporates/corporate_deactivated/watch": "emailAddress",
    "/consumers/kyc/watch": "consumerId",
    "/consumers/consumer_activated/watch": "emailAddress",
    "/consumers/consumer_deactivated/watch": "emailAddress",
    "/managed_cards/payments/watch": "cardPayment.card.id",
    "/managed_accounts/watch": "account.id.id",
    "/linked_accounts/watch": "linkedAccount.id",
    "/transfers/watch": "transfer.id.id",
    "/send/watch": "send.id.id",
    "/outgoing_wire_transfers/watch": "transfer.id.id",
    "/manual_transactions/watch": "targetInstrument.id",
    "/fees/watch": "chargeFee.source.id",
    "/login/watch": "credential.id",
    "/stepup/watch": "credential.id",
    "/authentication_factors/watch": "credentialId.id",
    "/beneficiaries/batch/watch": "id",
    "/bulk_process_end/watch": "bulkId",
    "/auth/users/user_deactivated/watch": "emailAddress",
    "/ibans/watch": "iban.id",
    "/correspondent_bank_transfers/watch": "transfer.id",
}
"""Fields of the entity's id. In all other kinds, it is ``id.id``."""

_CHOSEN_BY: Final[Mapping[str, str]] = {"categoryResult": "category"}
"""Fields that select the alternative of another field: its name begins with the first word of the selecting value."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A body with unique sensitive values, so that a test recognises them anywhere.

    Attributes:
        body: The body of the event.
        markers: The position of each planted value, by the value. Values of fewer than six characters are planted but
            not listed, because they also occur by chance.
    """

    body: dict[str, Any]
    markers: Mapping[str, str]


def body_of(
    path: str,
    rng: Random,
    *,
    fields: Fields = "all",
    new_fields: int = 0,
    new_enum_values: bool = False,
    entity: str | None = None,
) -> dict[str, Any]:
    """Return a body for the kind of ``path``. Equal states of ``rng`` give equal bodies.

    Args:
        path: Weavr's path, e.g. ``/managed_cards/authorisations/watch``.
        rng: Makes all random choices.
        fields: All fields, only the required ones, or each optional one with a probability of one half.
        new_fields: Number of unknown fields to add.
        new_enum_values: Whether one of the body's enums gets a value that the description does not list. The ``type``
            next to an id never does.
        entity: The entity that the body is about: an id, or the part of an e-mail address before the ``@``. If given,
            the body has it even if the description does not require the field.

    Raises:
        KeyError: There is no such kind.
    """
    body: dict[str, Any] = _builder(path)(rng, _SHARES[fields])
    _settle(path, body, entity)
    if new_enum_values:
        _grow_enum(path, body, rng)
    for number in range(new_fields):
        _objects(body)[int(rng.random() * len(_objects(body)))][f"sandboxAdded{number}"] = _unknown(rng)
    return body


def planted(path: str, rng: Random, *, fields: Fields = "all", entity: str | None = None) -> Planted:
    """Return a body with markers for names, addresses, account and card numbers, dates of birth and tokens."""
    body = body_of(path, rng, fields=fields, entity=entity)
    markers: dict[str, str] = {}
    _plant(body, "", rng, markers)
    return Planted(body, markers)


def entity_path(path: str) -> tuple[str, ...]:
    """Return the names of the nested fields that lead to the id of an event's entity."""
    return tuple(_ENTITY_FIELDS.get(path, "id.id").split("."))


def entity_in(path: str, body: Mapping[str, Any]) -> str:
    """Return the id of the entity that a body is about, or an empty text if the body does not name it."""
    found: Any = body
    for step in entity_path(path):
        found = found.get(step, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, str) else ""


@cache
def _builder(path: str) -> _Build:
    return _build(weavr_kinds()[path].body)


def _build(field: Field) -> _Build:
    if field.alternatives:
        return _alternatives(field)
    if field.kind == "object":
        return _object(field)
    if field.kind in ("array", "map"):
        return _collection(field)
    make = value_of(field)
    return lambda rng, _share: make(rng)


def _object(field: Field) -> _Build:
    followers = {one.name for one in field.fields if one.alternatives and one.name in _CHOSEN_BY}
    parts = [(one.name, one.required, _build(one)) for one in field.fields if one.name not in followers]
    chosen = [_following(field, name) for name in followers]

    def build(rng: Random, share: float) -> dict[str, Any]:
        made = {
            name: make(rng, share)
            for name, required, make in parts
            if required or share == 1.0 or (share and rng.random() < share)
        }
        for follow in chosen:
            follow(rng, share, made)
        return made

    return build


def _following(parent: Field, name: str) -> Callable[[Random, float, dict[str, Any]], None]:
    leader = next(one for one in parent.fields if one.name == _CHOSEN_BY[name])
    follower = next(one for one in parent.fields if one.name == name)
    builds = {
        value: _build(next(one for one in follower.alternatives if one.name.startswith(value.partition("_")[0])))
        for value in leader.values
    }

    def follow(rng: Random, share: float, made: dict[str, Any]) -> None:
        made[name] = builds[made[leader.name]](rng, share)

    return follow


def _alternatives(field: Field) -> _Build:
    builds = [_build(one) for one in field.alternatives]
    return lambda rng, share: builds[int(rng.random() * len(builds))](rng, share)


def _collection(field: Field) -> _Build:
    if field.item is None:
        raise ValueError(f"{field.name}: a list or map of nothing")
    make = _build(field.item)

    def number(rng: Random, share: float) -> int:
        return 1 + (share > 0 and rng.random() < 0.5)  # noqa: PLR2004 - one or two

    if field.kind == "map":
        return lambda rng, share: {str(one + 1): make(rng, share) for one in range(number(rng, share))}
    return lambda rng, share: [make(rng, share) for _ in range(number(rng, share))]


def _settle(path: str, body: dict[str, Any], entity: str | None) -> None:
    """Set the entity's id, and an instrument type that fits the kind and the id."""
    *steps, last = entity_path(path)
    holder = body
    for step in steps:
        if step not in holder and entity is None:
            return
        holder = holder.setdefault(step, {})
    if entity is not None:
        holder[last] = f"{entity}@example.com" if last == "emailAddress" else entity
    if holder.get("type") in (_CARD, _ACCOUNT):
        family = path.split("/")[1]
        # fees and adjustments exist for both types. One id must always have the same type, so its last digit decides
        holder["type"] = family if family in (_CARD, _ACCOUNT) else (_ACCOUNT, _CARD)[ord(holder[last][-1]) % 2]


def _grow_enum(path: str, body: dict[str, Any], rng: Random) -> None:
    found = list(_enum_fields(weavr_kinds()[path].body, body))
    if found:
        holder, name = found[int(rng.random() * len(found))]
        holder[name] = [NEW_ENUM_VALUE] if isinstance(holder[name], list) else NEW_ENUM_VALUE


def _enum_fields(field: Field, value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the object and the name of every enum in the body, except in alternatives: their enums tell them apart."""
    if field.kind in ("array", "map") and field.item:
        for one in value.values() if field.kind == "map" else value:
            yield from _enum_fields(field.item, one)
        return
    for one in field.fields:
        if one.name not in value or (one.name == "type" and "id" in value) or one.name in _CHOSEN_BY.values():
            continue
        if one.values or (one.item and one.item.values):
            yield value, one.name
        elif one.kind in ("object", "array", "map") and not one.alternatives:
            yield from _enum_fields(one, value[one.name])


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the object and all objects in its fields, but no items of lists and no maps, whose keys are numbers."""
    inner = (one for one in value.values() if isinstance(one, dict) and "1" not in one)
    return [value, *(found for one in inner for found in _objects(one))]


def _unknown(rng: Random) -> Any:
    values: tuple[Any, ...] = ("a text", int(rng.random() * 2**63), 0.25, None, True, ["ä", 1], {"inner": {"deep": []}})
    return values[int(rng.random() * len(values))]


_SENSITIVE: Final = re.compile(
    r"email|address|street|postcode|postalcode|name|beneficiary$|iban|accountnumber|^account$|descriptor|sortcode|token"
    r"|birth|mmyy|cardnumber|telephone|contact|documentnumber|(?<!product)reference",
    re.IGNORECASE,
)
_SHORTEST_MARKER: Final = 6


def _plant(value: Any, path: str, rng: Random, markers: dict[str, str]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        name = path.rpartition(".")[2] if isinstance(key, int) else key
        where = f"{path}.{key}".lstrip(".")
        if isinstance(inner, dict | list):
            _plant(inner, where, rng, markers)
        elif isinstance(inner, str) and _SENSITIVE.search(name):
            value[key] = marker = _marker(name, inner, rng)
            if len(marker) >= _SHORTEST_MARKER:
                markers[marker] = where


def _marker(name: str, old: str, rng: Random) -> str:
    """Return a unique value of the same shape."""
    if re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", old):
        return iban(rng)
    if re.fullmatch(r"\+?\d+", old):
        return re.sub(r"\d", lambda _: str(int(rng.random() * 10)), old)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", old):
        return f"19{int(rng.random() * 10):02d}-{1 + int(rng.random() * 12):02d}-{1 + int(rng.random() * 28):02d}"
    if "@" in old:
        return f"planted{rng.getrandbits(32):08x}@example.com"
    return f"PL{rng.getrandbits(32):08x}" if "post" in name.lower() else f"planted{rng.getrandbits(32):08x}"
