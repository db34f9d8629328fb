"""Format of an integration's CSV files, and how large they may be."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.units import Bytes, Count


class CsvSettings(BaseModel):
    """Format of the input file, and names of the columns that the result adds. ECS does not publish them: ask your contact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        description="Input columns that the processor sees and nothing stores or returns, by name in any case; default: names that look like CVV, PIN or track data; [] drops none",
    )

    @field_validator("delimiter")
    @classmethod
    def _usable_delimiter(cls, delimiter: str) -> str:
        if not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError("write one ASCII character other than a quote, a line end or NUL")
        return delimiter


class CsvLimits(BaseModel):
    """Limits that keep memory constant and refuse broken files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        description="A chunk ends at this many records. A crash repeats a chunk at most, so lower it if a card takes long",
    )
