"""How Weavr writes values, and the plain Python values that they become.

The description writes ids, times and amounts as text in some events and as JSON integers in others. A subscriber sees
one form: ids are ``str``, amounts and counts are ``int``, times are :class:`Instant`. Each remembers how it was
written, so that a model dumps as it was received.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

KNOWN_VALUES: Final = "x-known-values"
"""Values that are known of an open enumeration: others may come at any time, and fit."""
PATTERN: Final = "x-pattern"
"""What Weavr says about a text's form. Documentation: a text of another form fits as well."""

_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, the last that ``datetime`` knows."""
_MOST_DIGITS: Final = 38
_WHOLE: Final = re.compile(rf"-?[0-9]{{1,{_MOST_DIGITS}}}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _WrittenAsNumber(str):
    """An id that was a JSON integer on the wire."""

    __slots__ = ()


class _WrittenAsText(int):
    """A whole number that was text on the wire. It remembers the text, which may have leading zeros."""

    wire: str


def _id_of(number: int) -> _WrittenAsNumber:
    return _WrittenAsNumber(number)


def _id_as_written(value: str) -> str | int:
    return int(value) if isinstance(value, _WrittenAsNumber) else value


def _whole(text: str) -> int:
    # what most events hold is found without the pattern, which also knows the sign
    if not (text.isdecimal() and text.isascii() and len(text) <= _MOST_DIGITS) and not _WHOLE.fullmatch(text):
        raise ValueError("not a whole number")
    return int(text)


def _number_as_written(value: int) -> str | int:
    return value.wire if isinstance(value, _WrittenAsText) else value


def _either(text: CoreSchema, number: CoreSchema, error: tuple[str, str], written: Any) -> CoreSchema:
    """Text or JSON integer, never a float or a boolean, with one finding for whatever is neither."""
    return core_schema.union_schema(
        [text, number],
        mode="left_to_right",
        custom_error_type=error[0],
        custom_error_message=error[1],
        serialization=core_schema.plain_serializer_function_ser_schema(written),
    )


class _IdForm:
    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _either(
            core_schema.str_schema(strict=True),
            core_schema.no_info_after_validator_function(_id_of, core_schema.int_schema(strict=True)),
            ("id", "An id is text, or a whole number"),
            _id_as_written,
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": ["string", "integer"], PATTERN: "^[0-9]+$"}


@dataclass(frozen=True, slots=True)
class _NumberForm:
    about: str | None = None
    least: int | None = None
    most: int | None = None

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _either(
            core_schema.no_info_after_validator_function(self._number_of, core_schema.str_schema(strict=True)),
            core_schema.int_schema(strict=True, ge=self.least, le=self.most),
            ("whole_number", "A whole number is digits, as text or as a number"),
            _number_as_written,
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        told = {"description": self.about, "minimum": self.least, "maximum": self.most}
        said = {name: value for name, value in told.items() if value is not None}
        return {"type": ["string", "integer"], "pattern": "^-?[0-9]{1,38}$", **said}

    def _number_of(self, text: str) -> _WrittenAsText:
        number = _WrittenAsText(_whole(text))
        if (self.least is not None and number < self.least) or (self.most is not None and number > self.most):
            raise ValueError("out of bounds")
        number.wire = text
        return number


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """A moment. Equality and order are those of the moment, however it was written.

    Attributes:
        ms: Milliseconds since 1970-01-01T00:00:00Z.
        wire: As it was received: text of digits, or a number.
    """

    ms: int
    wire: str | int = field(compare=False)

    @property
    def at(self) -> datetime:
        """The moment as an aware ``datetime`` in UTC, exactly. Never fails."""
        return _EPOCH + timedelta(milliseconds=self.ms)

    def __str__(self) -> str:
        return self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @classmethod
    def _of_text(cls, text: str) -> Instant:
        ms = _whole(text)
        if not 0 <= ms <= _LAST_MS:
            raise ValueError("not a moment")
        return cls(ms, text)

    @classmethod
    def _of_number(cls, ms: int) -> Instant:
        return cls(ms, ms)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _either(
            core_schema.no_info_after_validator_function(cls._of_text, core_schema.str_schema(strict=True)),
            core_schema.no_info_after_validator_function(
                cls._of_number, core_schema.int_schema(strict=True, ge=0, le=_LAST_MS)
            ),
            ("epoch_ms", "A time is milliseconds since 1970, as text of digits or as a number"),
            lambda instant: instant.wire,
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "type": ["string", "integer"],
            "description": "Milliseconds since 1970-01-01T00:00:00Z.",
            "pattern": "^[0-9]{1,38}$",
            "minimum": 0,
            "maximum": _LAST_MS,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """Marks a text as an open enumeration: these values, with spaces between, are known, and others fit as well."""

    values: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), KNOWN_VALUES: self.values.split()}


@dataclass(frozen=True, slots=True)
class Written:
    """Says how Weavr writes a text; a text of another form fits as well."""

    pattern: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), PATTERN: self.pattern}


class _Deprecated:
    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "deprecated": True}


DEPRECATED: Final = _Deprecated()
"""Marks what Weavr calls deprecated. It is read as ever, and warns nobody."""

Id = Annotated[str, _IdForm()]
"""Never a number: ids exceed what a JSON reader that knows doubles only can hold."""
Integer = Annotated[int, _NumberForm()]
"""A whole number, also where the wire has text."""
Amount = Annotated[int, _NumberForm("Minor units of the currency, such as cents. May be negative.")]
"""In the currency beside it, or that of the account."""
Scale = Annotated[int, _NumberForm("Digits behind the decimal point.", -128, 127)]
Currency = Annotated[str, Written("^[A-Z]{3}$")]
Country = Annotated[str, Written("^[A-Z]{2}$")]
Tag = Annotated[str, Written("^[a-zA-Z0-9_-]{0,50}$")]
Date = Annotated[str, Written("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
Iban = Annotated[str, Written("^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$")]
Bic = Annotated[str, Written("^[a-zA-Z0-9]{4}[a-zA-Z]{2}[a-zA-Z0-9]{2}[a-zA-Z0-9]{0,3}$")]
AccountNumber = Annotated[str, Written("^[0-9]{8}$")]
SortCode = Annotated[str, Written("^[0-9]{6}$")]
