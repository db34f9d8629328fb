"""Pre-signed download and upload, as the stages see them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A pre-signed URL as announced, and when work with it must have ended.

    Attributes:
        url: Bearer secret: its query must never be logged.
        deadline: The earliest of the announced ``expires_at`` and the URL's own expiry, less the safety margin.
    """

    url: SecretStr
    deadline: datetime


UrlSource = Callable[[], Awaitable[SignedUrl]]
"""Gives the newest announced URL; asked again before every connection, since ECS may renew URLs in mid-job."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What the object store says of the input file.

    Attributes:
        etag: As received, quotes included; empty where the server sends none (then a resume starts over).
        size: Bytes on the wire (compressed size for a compressed file), or None where the server does not say.
        encoding: ``gzip`` where the first bytes are gzip's, whatever Content-Encoding says; else ``identity``.
        ranged: Whether the server sent the asked range alone (206); some servers send the whole file instead.
    """

    etag: str
    size: int | None
    encoding: Literal["identity", "gzip"]
    ranged: bool = field(default=False, compare=False)


class Download(Protocol):
    """A running download."""

    @property
    def info(self) -> SourceInfo:
        """What is known since the first answer; constant while this download lives."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes, decompressed, from the asked position; reconnects by Range and If-Match when cut.

        Pieces are at most 1 MiB. Memory is bounded by a few pieces however slowly they are taken.

        Raises:
            SourceChanged: The object is not the one that this download began with (TransientError): start over.
            SourceRefused: Expired, forbidden, gone, broken for good (PermanentError; ``code`` names which).
            TransientError: Attempts within this call are used up.
        """
        ...


class Downloader(Protocol):
    """Opens input files."""

    def open(
        self,
        source: UrlSource,
        *,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
        encoding: Literal["identity", "gzip"] | None = None,
    ) -> AbstractAsyncContextManager[Download]:
        """Open the file at byte ``start`` of its decompressed content.

        With ``start`` > 0 the object must still carry ``etag``: asked with Range and If-Match. A gzip file is read from
        its beginning and the first ``start`` decompressed bytes are skipped. With ``end`` the download ends there; this
        is only for a plain file, with its ``etag`` and ``encoding``. Where ``encoding`` is given, as an earlier
        :class:`SourceInfo` had it, this takes one round trip; else another one looks at the first bytes.

        Raises:
            SourceChanged: 412, or another ETag or size than asked for: start over at 0.
            AddressRefused: The host is not configured, the scheme or the address is not allowed (PermanentError).
            SourceRefused, TransientError: As in :meth:`Download.chunks`.
        """
        ...


class Uploader(Protocol):
    """Puts result files."""

    async def put(self, target: UrlSource, *, size: int, body: Callable[[], AsyncGenerator[bytes, None]]) -> str:
        """PUT ``size`` bytes once, compare the answer's ETag or another checksum with the body, return the ETag.

        ``body`` is called for each try. A repeat replaces the object whole, so repeating is safe until the deadline.
        Tries within this call are few; the runner's retry does the rest.

        Raises:
            UploadRefused: 4xx for good, over 5 GB, expired, wrong checksum value in the URL, or an ETag that looks
                like an MD5, is none, and that neither a checksum nor a HEAD explains (PermanentError).
            AddressRefused: As for downloads.
            TransientError: Repeat later.
        """
        ...
