"""The built-in processor that checks cards locally."""

from __future__ import annotations

from typing import Annotated, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import PermanentError
from pipeline.jobs.processors.luhn import digits_and_luhn
from pipeline.jobs.processors.protocols import JobContext

Flags = NDArray[np.bool_]

_CARD_NUMBER: Final = "__card_number"


class ColumnRule(BaseModel):
    """Rules for the values of another column. An empty value breaks only ``required``."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    required: bool = Field(default=False, description="The value may not be empty")
    max_length: int | None = Field(default=None, ge=1, description="Maximum length of the value")
    pattern: str | None = Field(
        default=None, description="Regular expression (RE2) that the whole value must match, e.g. [A-Z]{3}"
    )
    one_of: tuple[str, ...] | None = Field(default=None, min_length=1, description="The values that are allowed")

    @model_validator(mode="after")
    def _pattern_compiles(self) -> Self:
        if self.pattern is not None:
            import pyarrow.compute as pc  # noqa: PLC0415 - it makes 300 functions in Python; an idle worker calls none

            try:
                pc.match_substring_regex(pa.array([""]), _whole(self.pattern))
            except pa.ArrowInvalid as error:
                raise ValueError(f"pattern is not a regular expression of RE2: {error}") from error
        return self


class ValidateOptions(BaseModel):
    """Rules for the card number and for other columns."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    min_length: int = Field(default=12, ge=1, description="Minimum length of a card number")
    max_length: int = Field(default=19, ge=1, le=200, description="Maximum length of a card number")
    digits_only: bool = Field(default=True, description="A card number may have only the digits 0 to 9")
    luhn: bool = Field(default=True, description="Check the last digit with the Luhn formula (ISO/IEC 7812-1)")
    prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="A card number must begin with one of these; empty allows any"
    )
    columns: dict[str, ColumnRule] = Field(default_factory=dict, description="Rules for other columns, by their name")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError("min_length is greater than max_length")
        if self.luhn and not self.digits_only:
            raise ValueError("luhn needs digits_only")
        return self


class Validate:
    """Fails cards that break a rule; the message names the first broken rule, never a value. Columnar."""

    Options = ValidateOptions
    version = "1"

    def __init__(self, options: ValidateOptions) -> None:
        self._options = options
        self.input_columns = (_CARD_NUMBER, *(name for name in options.columns if name != _CARD_NUMBER))

    def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
        """Return status and message of every card.

        Raises:
            PermanentError: A rule is for a column that the file lacks (``validate_column_missing``).
        """
        decision = _Decision(batch.num_rows)
        self._check_numbers(batch.column(_CARD_NUMBER), decision)
        for name, rule in self._options.columns.items():
            if name not in batch.schema.names:
                raise PermanentError(
                    "validate_column_missing",
                    f"Processor validate has a rule for column {name!r}, which the file lacks.",
                )
            _check_column(name, batch.column(name), rule, decision)
        return decision.batch()

    def _check_numbers(self, numbers: pa.StringArray, decision: _Decision) -> None:
        options = self._options
        lengths = _lengths(numbers)
        decision.fail(lengths == 0, "card number is missing")
        if options.digits_only:
            digits, sums = digits_and_luhn(numbers)
            decision.fail(~digits, "card number has characters other than digits")
        wrong = (lengths < options.min_length) | (lengths > options.max_length)
        decision.fail(wrong, f"card number must have {options.min_length} to {options.max_length} characters")
        if options.luhn:
            decision.fail(~sums, "card number fails its check digit (Luhn)")
        if options.prefixes:
            import pyarrow.compute as pc  # noqa: PLC0415 - as above

            allowed = np.zeros(len(numbers), np.bool_)
            for prefix in options.prefixes:
                allowed |= _flags(pc.starts_with(numbers, prefix))
            decision.fail(~allowed, "card number begins with none of the allowed prefixes")


class _Decision:
    """The first broken rule of each card."""

    def __init__(self, rows: int) -> None:
        self._codes = np.zeros(rows, np.int32)
        self._messages = [""]

    def fail(self, broken: Flags, message: str) -> None:
        if broken.any():
            self._codes[broken & (self._codes == 0)] = len(self._messages)
            self._messages.append(message)

    def batch(self) -> pa.RecordBatch:
        failed = pa.array((self._codes > 0).astype(np.int32))
        status = pa.DictionaryArray.from_arrays(failed, pa.array(["ok", "failed"]))
        message = pa.DictionaryArray.from_arrays(pa.array(self._codes), pa.array(self._messages))
        return pa.RecordBatch.from_arrays([status, message], names=["status", "message"])


def _check_column(name: str, values: pa.StringArray, rule: ColumnRule, decision: _Decision) -> None:
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    lengths = _lengths(values)
    filled = lengths > 0
    if rule.required:
        decision.fail(~filled, f"{name} is missing")
    if rule.max_length is not None:
        decision.fail(lengths > rule.max_length, f"{name} has more than {rule.max_length} characters")
    if rule.pattern is not None:
        matches = _flags(pc.match_substring_regex(values, _whole(rule.pattern)))
        decision.fail(filled & ~matches, f"{name} does not have the required form")
    if rule.one_of is not None:
        known = _flags(pc.is_in(values, pa.array(rule.one_of, pa.string())))
        decision.fail(filled & ~known, f"{name} is not one of the allowed values")


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"


def _lengths(values: pa.StringArray) -> NDArray[np.int32]:
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    lengths: NDArray[np.int32] = pc.utf8_length(values).to_numpy()
    return lengths


def _flags(values: pa.BooleanArray) -> Flags:
    flags: Flags = values.to_numpy(zero_copy_only=False)
    return flags
