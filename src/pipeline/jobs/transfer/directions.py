"""Words of the two directions, and what both ask of a URL before they connect."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pipeline.jobs.transfer.errors import SourceRefused, UploadRefused
from pipeline.jobs.transfer.protocols import SignedUrl, UrlSource
from pipeline.jobs.transfer.urls import signed_headers

_HEADER_NAME: Final = re.compile(r"[a-z0-9-]{1,40}")
_MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Direction:
    """Words of one direction.

    Attributes:
        name: Label of metrics.
        prefix: First part of error codes.
        field: The announcement's field with the URL.
        refused: What a failure for good is raised as.
        sendable: Headers that we can send as signed.
    """

    name: Literal["download", "upload"]
    prefix: Literal["source", "upload"]
    field: str
    refused: type[SourceRefused | UploadRefused]
    sendable: frozenset[str]


DOWNLOAD: Final = Direction("download", "source", "input_file_url", SourceRefused, frozenset({"host"}))
UPLOAD: Final = Direction("upload", "upload", "result_upload_url", UploadRefused, frozenset({"host", "content-length"}))


async def next_url(source: UrlSource, direction: Direction, clock: Callable[[], datetime]) -> SignedUrl:
    """Return the newest announced URL, if it can still be used, and by us.

    Raises:
        SourceRefused: The deadline has passed, or the signature covers headers that we cannot send.
        UploadRefused: The same, for an upload.
    """
    signed = await source()
    if signed.deadline <= clock():
        raise direction.refused(
            f"{direction.prefix}_deadline_passed",
            f"{direction.field} expires too soon to go on (work with it had to end at "
            f"{signed.deadline:%Y-%m-%d %H:%M:%S} UTC). Announce the job again with fresh URLs.",
        )
    foreign = signed_headers(signed.url.get_secret_value()) - direction.sendable
    if foreign:
        names = ", ".join(sorted(name for name in foreign if _HEADER_NAME.fullmatch(name))[:_MAX_NAMED])
        raise direction.refused(
            f"{direction.prefix}_signed_headers",
            f"{direction.field} is signed for headers whose values nobody told us ({names}). Sign it for host alone "
            "(X-Amz-SignedHeaders=host).",
        )
    return signed
