"""Format of an integration's CSV files, and how large they may be."""

from __future__ import annotations

import re
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.units import Bytes, Count

_POSITION: Final = re.compile(r"(?:column_)?[1-9][0-9]{0,3}")


def is_position(column: str) -> bool:
    """Return whether a setting names a column by its number from 1, such as ``3`` or ``column_3``."""
    return _POSITION.fullmatch(column) is not None


class CsvSettings(BaseModel):
    """Format of the input file, and columns that the result adds. ECS does not publish it: ask your contact."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    delimiter: str = Field(
        default=",", min_length=1, max_length=1, description="One ASCII character between two fields"
    )
    encoding: Literal["utf-8", "ascii", "latin-1", "windows-1252"] = Field(
        default="utf-8", description="Encoding of the file; a UTF-8 BOM is stripped"
    )
    header: bool = Field(
        default=True,
        description="Whether the first record names the columns; without it they are column_1, column_2, ...",
    )
    card_column: str = Field(
        default="card_number",
        min_length=1,
        description="Name of the column with the card number, or its position from 1 as text",
    )
    status_column: str = Field(
        default="status", min_length=1, description="Name of the result column that holds ok or failed"
    )
    message_column: str = Field(
        default="message", min_length=1, description="Name of the result column that holds the reason of a failure"
    )
    rename_result_columns: dict[str, str] = Field(
        default_factory=dict,
        description="New names for the processor's own result columns, if they collide with input columns",
    )
    drop_columns: tuple[str, ...] | None = Field(
        default=None,
        description="Input columns that only the processor sees: they are neither stored nor returned. Give names in any case, or positions from 1 as text. Default: names that look like CVV, PIN or track data; [] drops none. Must be set if header = false",
    )

    @field_validator("delimiter")
    @classmethod
    def _usable_delimiter(cls, delimiter: str) -> str:
        if not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError("write one ASCII character other than a quote, a line end or NUL")
        return delimiter

    @model_validator(mode="after")
    def _columns_without_names(self) -> Self:
        if self.header:
            return self
        faults = []
        if not is_position(self.card_column):
            faults.append('write card_column as a number, e.g. card_column = "1"')
        if self.drop_columns is None:
            faults.append(
                'write drop_columns = ["3"] with the number of each column that holds a CVV, PIN or track data, or '
                "drop_columns = [] if there are none: without names the pipeline cannot find them and would store them"
            )
        elif not all(map(is_position, self.drop_columns)):
            faults.append('write drop_columns as numbers, e.g. drop_columns = ["3"]')
        if faults:
            raise ValueError(f"with header = false the columns have no names; {'; '.join(faults)}")
        return self


class CsvLimits(BaseModel):
    """Limits that keep memory constant and refuse broken files."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    max_bytes: Bytes = Field(
        default=5_000_000_000,
        ge=1,
        description="Size of the decompressed input file above which the job fails. Raise it for a partner with larger files",
    )
    max_records: Count = Field(
        default=20_000_000,
        ge=1,
        description="Data records of a file above which the job fails. Raise it for a partner with longer files",
    )
    max_field_bytes: Bytes = Field(
        default=65_536,
        ge=1,
        description="Size of one field above which the job fails. Raise it if your partner sends long texts",
    )
    max_record_bytes: Bytes = Field(
        default=262_144,
        ge=1,
        le=67_108_864,
        description="Size of one record above which the job fails. Raise it together with max_field_bytes",
    )
    chunk_bytes: Bytes = Field(
        default=1_048_576,
        ge=1024,
        le=268_435_456,
        description="A chunk ends at this size. Larger chunks need more memory and fewer objects in the store",
    )
    chunk_records: Count = Field(
        default=10_000,
        ge=1,
        description="A chunk ends at this many records. A crash repeats at most one chunk: lower it if a card takes long",
    )
