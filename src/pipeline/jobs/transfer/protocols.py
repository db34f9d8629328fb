"""The stages' interface to downloads and uploads with pre-signed URLs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An announced pre-signed URL, and the time by which work with it must end.

    Attributes:
        url: Bearer secret: its query must never be logged.
        deadline: The earliest of the announced ``expires_at`` and the URL's own expiry, less the safety margin.
    """

    url: SecretStr
    deadline: datetime


UrlSource = Callable[[], Awaitable[SignedUrl]]
"""Returns the newest announced URL. It is called before every connection, because ECS may renew URLs during a job."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What the object store says of the input file.

    Attributes:
        etag: As received, with quotes; empty if the server sends none. Then a download cannot be resumed.
        size: Bytes on the wire (compressed size for a compressed file), or None if the server does not say.
        encoding: ``gzip`` if the first bytes are gzip's, regardless of Content-Encoding; else ``identity``.
        ranged: Whether the server sent only the requested range (206); some servers send the whole file instead.
    """

    etag: str
    size: int | None
    encoding: Literal["identity", "gzip"]
    ranged: bool = field(default=False, compare=False)


class Download(Protocol):
    """A running download."""

    @property
    def info(self) -> SourceInfo:
        """Facts from the first answer. They stay the same for this download."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's decompressed bytes from the start. After a cut it reconnects, with Range and If-Match.

        Pieces have at most 1 MiB. Memory holds only a few pieces, even if the caller reads slowly.

        Raises:
            SourceChanged: The object is not the one that this download began with (TransientError): start over.
            SourceRefused: The file is expired, forbidden, missing or broken (PermanentError; ``code`` names the
                reason).
            TransientError: This call has no tries left.
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

        If ``start`` > 0, the object must still have ``etag``: the request has Range and If-Match. A gzip file is read
        from its beginning, and the first ``start`` decompressed bytes are skipped. The download ends at ``end``, which
        is only allowed for a plain file, with ``etag`` and ``encoding``. If you pass the ``encoding`` of an earlier
        :class:`SourceInfo`, this takes one round trip; otherwise another request reads the first bytes.

        Raises:
            SourceChanged: 412, or another ETag or size than asked for: start over at 0.
            AddressRefused: The host is not configured, or the scheme or the address is not allowed (PermanentError).
            SourceRefused, TransientError: See :meth:`Download.chunks`.
        """
        ...


class Uploader(Protocol):
    """Puts result files."""

    async def put(self, target: UrlSource, *, size: int, body: Callable[[], AsyncGenerator[bytes, None]]) -> str:
        """PUT ``size`` bytes, compare the answer's ETag or another checksum with the body, and return the ETag.

        Each try calls ``body``. A repeat replaces the whole object, so it is safe until the deadline. One call makes
        only a few tries; the retry of the whole job does the rest.

        Raises:
            UploadRefused: A permanent 4xx, a result over 5 GB, an expired URL, a wrong checksum value in the URL, or an
                ETag that looks like an MD5 but is not, and that neither a checksum nor a HEAD explains
                (PermanentError).
            AddressRefused: See :meth:`Downloader.open`.
            TransientError: Repeat later.
        """
        ...
