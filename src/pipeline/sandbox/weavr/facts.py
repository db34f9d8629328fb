"""Reader of ``events.json``: one tree per event, from the flattened fields of Weavr's webhook description.

In that file, ``a.b`` is a field of an object, ``a[]`` an item of a list, and ``a{}`` a value of a map. A name in
backticks is one of the file's common types or enums, or a type whose fields follow as dotted paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

Kind = Literal["string", "date", "integer", "boolean", "object", "array", "map"]

_BASES: Final[Mapping[str, Kind]] = {
    "string": "string",
    "string(date)": "date",
    "integer": "integer",
    "integer(int32)": "integer",
    "integer(int64)": "integer",
    "boolean": "boolean",
    "object": "object",
}
_TYPE: Final = re.compile(r"(?P<base>[a-z0-9()]+)(?: `(?P<ref>\w+)`)?")
_ENUM: Final = re.compile(r"enum ((?:`[^`]*`(?: / )?)+)")
_PATTERN: Final = re.compile(r"pattern `(.*?)`(?:;|$)")
_LENGTH: Final = re.compile(r"len (\d+)\.\.(\d+)")

UNIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "CardPaymentEvent": (
        "CardPaymentAuthorisationEvent",
        "CardPaymentSettlementEvent",
        "CardPaymentRefundEvent",
        "CardPaymentOriginalCreditEvent",
    ),
    "CardPaymentFee": ("CardPaymentPlatformFee", "CardPaymentForexFee"),
    "originator": ("CorrespondentBankingIndividualOriginator", "CorrespondentBankingBusinessOriginator"),
    "beneficiary": (
        "CorrespondentBankingSEPABeneficiary",
        "CorrespondentBankingRIXBeneficiary",
        "CorrespondentBankingFasterPaymentsBeneficiary",
    ),
    "categoryResult": ("UKConfirmationOfPayeeResult", "SEPAVerificationOfPayeeResult"),
    "accountReference": ("AccountNumberAndSortCode", "Iban", "AccountDescriptor"),
    "details": ("AccountNumberAndSortCode", "Iban"),
}
"""The alternatives of an object, by its type or by the name of its field.

The file lists all alternatives, but does not say where each is used. It does not say either which discriminator value
selects which alternative; see :data:`CHOICES`. It does not define an individual originator's
``supplementaryInformation``, which stays empty here.
"""

CHOICES: Final[Mapping[str, str]] = {
    "CardPaymentAuthorisationEvent": "AUTHORISATION",
    "CardPaymentSettlementEvent": "SETTLEMENT",
    "CardPaymentRefundEvent": "REFUND",
    "CardPaymentOriginalCreditEvent": "ORIGINAL_CREDIT",
    "CardPaymentPlatformFee": "PLATFORM_FEE",
    "CardPaymentForexFee": "FOREX_FEE",
}
"""The value of ``type`` in each alternative that has one. The names suggest which belong together."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field, item or value.

    Attributes:
        name: Name in the JSON document; an item has the name of its list.
        values: Values of an enum; empty for all other fields.
        pattern: Pattern from the file; None if the file has none, or cuts it off.
        longest: Most characters; 0 if the file does not say.
        fields: Fields of an object.
        item: Item of a list, or value of a map.
        alternatives: Objects of which exactly one is present.
    """

    name: str
    kind: Kind
    required: bool
    values: tuple[str, ...] = ()
    pattern: str | None = None
    longest: int = 0
    fields: tuple[Field, ...] = ()
    item: Field | None = None
    alternatives: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class WeavrKind:
    """One of the 32 kinds of events.

    Attributes:
        path: The path that Weavr appends to the base URL.
        category: The category in the topic's name, e.g. ``managed-cards``.
        signed: Whether Weavr declares a signature.
        body: The fields of the body.
    """

    path: str
    category: str
    signed: bool
    body: Field


@cache
def document() -> dict[str, Any]:
    """Return the parsed file."""
    found: dict[str, Any] = json.loads((resources.files(__package__) / "events.json").read_text("utf-8"))
    return found


@cache
def weavr_kinds() -> Mapping[str, WeavrKind]:
    """Return all kinds by path."""
    return {path: _kind(path, facts) for path, facts in document()["events"].items()}


def _kind(path: str, facts: Mapping[str, Any]) -> WeavrKind:
    category = str(facts["seed_category"]).rpartition(": ")[2].lower().replace(" ", "-")
    return WeavrKind(
        path, category, bool(facts["signed"]), Field(path, "object", required=True, fields=_tree(facts["fields"]))
    )


def _tree(rows: Sequence[Mapping[str, Any]]) -> tuple[Field, ...]:
    return tuple(_field(row, _below(rows, row["path"])) for row in rows if not re.search(r"[.\[{]", row["path"]))


def _below(rows: Sequence[Mapping[str, Any]], path: str) -> list[Mapping[str, Any]]:
    """Return the rows below a field, with paths relative to the field or to its item."""
    start = re.compile(re.escape(path) + r"(\[\]|\{\})?\.")
    found = ((row, start.match(row["path"])) for row in rows)
    return [{**row, "path": row["path"][match.end() :]} for row, match in found if match]


def _field(row: Mapping[str, Any], below: Sequence[Mapping[str, Any]]) -> Field:
    text, name, required = str(row["type"]), str(row["path"]), bool(row["required"])
    if text.startswith("array of "):
        item = _plain(name, text.removeprefix("array of "), row, below, required=True)
        return Field(name, "array", required, item=item)
    if text.startswith("map<string, "):
        item = _plain(name, text.removeprefix("map<string, ").removesuffix(">"), row, below, required=True)
        return Field(name, "map", required, item=item)
    return _plain(name, text, row, below, required=required)


def _plain(
    name: str, text: str, row: Mapping[str, Any], below: Sequence[Mapping[str, Any]], *, required: bool
) -> Field:
    match = _TYPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{name}: the type {text!r} is of no known form")
    kind, ref = _BASES[match["base"]], match["ref"]
    if kind != "object":
        longest = _LENGTH.search(row["constraint"])
        return Field(
            name,
            kind,
            required,
            _values(ref, row["constraint"]),
            _pattern(row["constraint"]),
            int(longest[2]) if longest else 0,
        )
    types = document()["common_types"]
    union = UNIONS.get(ref or (name if not below else ""), ())
    return Field(
        name,
        kind,
        required,
        fields=_tree(below) or _tree(types.get(ref, ())),
        alternatives=tuple(_alternative(one, types[one]) for one in union),
    )


def _alternative(type_name: str, rows: Sequence[Mapping[str, Any]]) -> Field:
    fields = _tree(rows)
    choice = CHOICES.get(type_name)
    if choice:
        fields = tuple(
            Field("type", "string", required=True, values=(choice,)) if one.name == "type" else one for one in fields
        )
    return Field(type_name, "object", required=True, fields=fields)


def _values(ref: str | None, constraint: str) -> tuple[str, ...]:
    listed = document()["enums"].get(ref)
    if listed:
        return tuple(listed)
    match = _ENUM.search(constraint)
    return tuple(re.findall(r"`([^`]*)`", match[1])) if match else ()


def _pattern(constraint: str) -> str | None:
    match = _PATTERN.search(constraint)
    if match is None or match[1].endswith("…"):
        return None
    return match[1].replace(r"\|", "|")  # the file escapes it for its tables
