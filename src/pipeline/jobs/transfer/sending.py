"""The body of one PUT on its way: counted, hashed, watched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

from pipeline.jobs.transfer.errors import UploadRefused
from pipeline.jobs.transfer.pace import Pace
from pipeline.observability import Metrics

BodySource = Callable[[], AsyncIterator[bytes]]


class Sending:
    """Hands a body to the HTTP client piece by piece and keeps a timeout in step with it.

    The time that the body's own source takes does not count against the other side.

    Attributes:
        size: Bytes that the body must have.
        begun: Whether the client asked for the first piece: the connection stands, and 100 Continue came if awaited.
        sent: Bytes handed over.
        error: What broke the body off; the HTTP client hides an error of the source in one of its own.
    """

    def __init__(
        self,
        body: BodySource,
        size: int,
        *,
        pace: Pace,
        timeout: asyncio.Timeout,
        answer_seconds: float,
        metrics: Metrics | None,
    ) -> None:
        self.begun = False
        self.sent = 0
        self.error: BaseException | None = None
        self._body = body
        self.size = size
        self._pace = pace
        self._timeout = timeout
        self._answer_seconds = answer_seconds
        self._metrics = metrics
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._pieces = self._watched()

    @property
    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body for the HTTP client."""
        return self._pieces

    @property
    def whole(self) -> bool:
        """Whether all of the body was handed over."""
        return self.sent == self.size

    @property
    def md5(self) -> str:
        """Hex MD5 of what was handed over."""
        return self._md5.hexdigest()

    async def close(self) -> None:
        """Close the body's source."""
        # where the client's cancelled writer is still inside, the cancellation closes it
        with suppress(RuntimeError):
            await self._pieces.aclose()

    async def _watched(self) -> AsyncGenerator[bytes, None]:
        self.begun = True
        try:
            async for piece in self._checked():
                asked = self._pace.now
                self._allow(self._pace.latest)
                yield piece
                self._pace.passed(len(piece), self._pace.now - asked)
                self._allow(self._pace.ends)
        except BaseException as error:
            self.error = error
            raise
        self._allow(self._pace.within(self._answer_seconds))

    async def _checked(self) -> AsyncIterator[bytes]:
        async for piece in self._body():
            self.sent += len(piece)
            if self.sent > self.size:
                raise _wrong_size("more")
            # less than a millisecond: pieces are what the job store reads at once
            self._md5.update(piece)
            if self._metrics is not None:
                self._metrics.transfer_bytes.labels("upload").inc(len(piece))
            yield piece
        if self.sent < self.size:
            raise _wrong_size("fewer")

    def _allow(self, until: float) -> None:
        # once it has fired there is nothing left to move
        with suppress(RuntimeError):
            self._timeout.reschedule(until)


def _wrong_size(how: str) -> UploadRefused:
    return UploadRefused(
        "upload_size_mismatch",
        f"The parts of the result hold {how} bytes than were recorded for them: check the store.",
    )
