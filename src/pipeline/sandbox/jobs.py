"""The batch jobs of the sandbox's ECS, and their input files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.sandbox.cards import CardFile, Ledger, write_cards
from pipeline.sandbox.disk import Checksum
from pipeline.sandbox.jsonapi import iso
from pipeline.sandbox.settings import Scheme
from pipeline.sandbox.webhook import Attempt

Content = Literal["cards", "html", "xml", "empty", "nothing", "utf16", "open_quote"]
"""``nothing``: no object at all. ``open_quote``: a card file whose last field has no closing quote."""

_HTML: Final = """<!DOCTYPE html>
<html><head><title>503 Service Unavailable</title></head>
<body><h1>Service Unavailable</h1><p>The export service is down for maintenance, please try again later.</p></body>
</html>
"""
_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code></Error>\n'


def write_input(path: Path, content: Content, spec: CardFile) -> Ledger | None:
    """Write the input file; return its ledger if it is a card file. It blocks, so call it in a thread."""
    match content:
        case "cards":
            return write_cards(path, spec)
        case "open_quote":
            write_cards(path, spec.model_copy(update={"gzip": False}))
            with path.open("ab") as file:
                file.write(b'9999990000000000,01/30,1.00,"NOBODY')
        case "utf16":
            path.write_bytes("card_number,note\n1,two\n".encode("utf-16"))
        case "html":
            path.write_text(_HTML, encoding="utf-8")
        case "xml":
            path.write_text(_XML, encoding="utf-8")
        case "empty" | "nothing":
            path.write_bytes(b"")
    return None


CALLBACK_PATH: Final = "/api/reporting/v1/partner/batch-jobs/{job_guid}/result-uploaded"


class JobRequest(BaseModel):
    """The job that ECS creates. Everything has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cards: CardFile = Field(default_factory=CardFile)
    content: Content = Field(default="cards", description="Contents of the input file")
    content_encoding: str | None = Field(default=None, description="Content-Encoding in the store's answer, e.g. gzip")
    checksum: Checksum = Field(default="none", description="The input's CRC32 in the store's answer")
    record_count: int | None = Field(default=None, description="Announced number of cards; default: that of the file")
    expires_in_seconds: float = Field(default=3600.0, description="Announced expiry; 0 or less is in the past")
    url_expires_in_seconds: int | None = Field(
        default=None, ge=1, description="Actual expiry of the URLs; default: the announced one"
    )
    upload_checksum: bool = Field(
        default=True, description="Whether the upload URL contains the CRC32 of an empty body"
    )
    webhook_url: str | None = Field(default=None, description="URL to announce it to; default: the sandbox's setting")
    scheme: Scheme | None = Field(default=None, description="How to sign the webhook; default: the sandbox's setting")
    announce: bool = Field(default=True, description="Send the webhook at once")
    job_guid: UUID | None = None
    merchant_guid: UUID | None = None
    partner_reference_id: str | None = None
    override: dict[str, JsonValue] = Field(
        default_factory=dict, description="Fields of the announcement to replace, to simulate wrong announcements"
    )
    omit: tuple[str, ...] = Field(default=(), description="Fields of the announcement to leave out")


@dataclass(frozen=True, slots=True)
class Announcement:
    """One sent announcement.

    Attributes:
        body: The bytes; they hold bearer URLs.
        urls: Input and upload URL.
        attempts: Every try to send it.
    """

    body: bytes = field(repr=False)
    urls: tuple[str, str] = field(repr=False)
    expires_at: datetime
    attempts: tuple[Attempt, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the integrator accepted it."""
        return any(attempt.accepted for attempt in self.attempts)


@dataclass(slots=True)
class Job:
    """One job at ECS.

    Attributes:
        ledger: The contents of the input file; None if that is not a card file.
        success: The outcome in the integrator's callback; None before the callback.
        called_back: Set by the callback.
    """

    guid: UUID
    merchant_guid: UUID
    partner_reference_id: str
    partner_guid: UUID
    request: JobRequest
    created_at: datetime
    ledger: Ledger | None = None
    announcements: list[Announcement] = field(default_factory=list)
    success: bool | None = None
    called_back: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def input_key(self) -> str:
        """Key of the input object."""
        return f"{self.partner_guid}/{self.guid}/input.csv"

    @property
    def result_key(self) -> str:
        """Key of the result object."""
        return f"{self.partner_guid}/{self.guid}/output.csv"

    @property
    def record_count(self) -> int:
        """The announced number of cards."""
        if self.request.record_count is not None:
            return self.request.record_count
        return self.ledger.records if self.ledger else (self.request.cards.records or 0)

    def settle(self, *, success: bool) -> None:
        """Take the outcome from the integrator's callback."""
        self.success = success
        self.called_back.set()

    def reopen(self) -> None:
        """Forget a failure, because the job is announced again and ECS expects another callback."""
        if self.success is False:
            self.success = None
            self.called_back.clear()

    def body(self, *, base: str, urls: tuple[str, str], expires_at: datetime, override: Mapping[str, object]) -> bytes:
        """Return the announcement, fields in the order of ECS's page."""
        fields: dict[str, object] = {
            "job_guid": str(self.guid),
            "partner_reference_id": self.partner_reference_id,
            "merchant_guid": str(self.merchant_guid),
            "external_location_ids": list(self.request.cards.locations),
            "record_count": self.record_count,
            "input_file_url": urls[0],
            "result_upload_url": urls[1],
            "expires_at": iso(expires_at),
            "callback_url": base + CALLBACK_PATH.format(job_guid=self.guid),
        }
        fields |= self.request.override
        fields |= override
        return json.dumps({name: value for name, value in fields.items() if name not in self.request.omit}).encode()
