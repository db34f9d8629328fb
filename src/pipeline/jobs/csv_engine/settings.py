"""How an integration's CSV files look, and how large they may be."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.units import Bytes, Count


class CsvSettings(BaseModel):
    """Format of the input file and names of the columns that the result adds. ECS publishes neither: ask your contact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: str = Field(default=",", min_length=1, max_length=1, description="One ASCII character between fields")
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
        description="Header name of the column that holds the card number, or its number from 1 as text",
    )
    status_column: str = Field(
        default="status", min_length=1, description="Name of the result column that says ok or failed"
    )
    message_column: str = Field(default="message", min_length=1, description="Name of the result column that says why")
    rename_result_columns: dict[str, str] = Field(
        default_factory=dict,
        description="New names for a processor's own result columns, where they collide with input columns",
    )
    drop_columns: tuple[str, ...] | None = Field(
        default=None,
        description="Input columns that the processor sees but nothing stores or echoes, by name without regard to case; default: names that look like CVV, PIN or track data; [] drops none",
    )

    @field_validator("delimiter")
    @classmethod
    def _usable_delimiter(cls, delimiter: str) -> str:
        if not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError("write one ASCII character other than a quote, a line end or NUL")
        return delimiter


class CsvLimits(BaseModel):
    """Bounds that keep memory constant and refuse what cannot be right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: Bytes = Field(default=5_000_000_000, ge=1, description="Size of the decompressed input file in bytes")
    max_records: Count = Field(default=20_000_000, ge=1, description="Number of data records in a file")
    max_field_bytes: Bytes = Field(default=65_536, ge=1, description="Size of one field in bytes")
    max_record_bytes: Bytes = Field(default=262_144, ge=1, le=67_108_864, description="Size of one record in bytes")
    chunk_bytes: Bytes = Field(
        default=1_048_576, ge=1024, le=268_435_456, description="A chunk is closed when it holds this many bytes"
    )
    chunk_records: Count = Field(default=10_000, ge=1, description="A chunk is closed when it holds this many records")
