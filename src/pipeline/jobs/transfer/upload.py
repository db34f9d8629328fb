"""Uploads result files: one streamed PUT, checked by the answer's ETag or another checksum."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

import aiohttp

from pipeline.errors import PipelineError, TransientError
from pipeline.jobs.transfer.answers import Refusal
from pipeline.jobs.transfer.digests import Digests, Hashing
from pipeline.jobs.transfer.failures import (
    UPLOAD,
    Tries,
    UploadRefused,
    as_transient,
    failure_of,
    next_url,
    refusal_of,
    renewed,
    translated,
)
from pipeline.jobs.transfer.pace import Pace
from pipeline.jobs.transfer.protocols import SignedUrl, UrlSource
from pipeline.jobs.transfer.settings import TransferParameters
from pipeline.jobs.transfer.stored import Proof, proof_of_head, proof_of_put
from pipeline.jobs.transfer.urls import demands_empty_body
from pipeline.observability import Metrics
from pipeline.outbound import Circuit, CircuitOpen, Circuits, HostUnavailable, host_of, request_url

BodySource = Callable[[], AsyncGenerator[bytes, None]]


class Sending:
    """Passes a body to the HTTP client piece by piece, and moves the timeout with each piece.

    The time that the body's source needs does not count against the other side.

    Attributes:
        size: Bytes that the body must have.
        begun: Whether the client asked for the first piece: the connection is open, and 100 Continue arrived if
            required.
        error: The exception that interrupted the body. The HTTP client hides an error of the source in its own error.
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
        self._hashing = Hashing()
        self._taken = 0
        self.error: BaseException | None = None
        self._body = body
        self.size = size
        self._pace = pace
        self._timeout = timeout
        self._answer_seconds = answer_seconds
        self._metrics = metrics
        self._pieces = self._watched()

    @property
    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body for the HTTP client."""
        return self._pieces

    @property
    def whole(self) -> bool:
        """Whether the whole body was passed to the client."""
        return self._taken == self.size

    async def digests(self) -> Digests:
        """Return the number and the digests of the bytes passed to the client."""
        return await self._hashing.digests()

    async def close(self) -> None:
        """Close the body's source."""
        # if the client's cancelled writer still uses it, the cancellation closes it
        with suppress(RuntimeError):
            await self._pieces.aclose()

    async def _watched(self) -> AsyncGenerator[bytes, None]:
        self.begun = True
        try:
            async with aclosing(self._checked()) as pieces:
                async for piece in pieces:
                    asked = self._pace.now
                    self._allow(self._pace.latest)
                    yield piece
                    self._pace.passed(len(piece), self._pace.now - asked)
                    self._allow(self._pace.ends)
        except BaseException as error:
            self.error = error
            raise
        self._allow(self._pace.within(self._answer_seconds))

    async def _checked(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._body()) as pieces:
            async for piece in pieces:
                if self._taken + len(piece) > self.size:
                    raise _wrong_size("more")
                await self._hashing.add(piece)
                self._taken += len(piece)
                if self._metrics is not None:
                    self._metrics.transfer_bytes.labels("upload").inc(len(piece))
                yield piece
        if self._taken < self.size:
            raise _wrong_size("fewer")

    def _allow(self, until: float) -> None:
        # once the timeout has fired, it cannot be moved
        with suppress(RuntimeError):
            self._timeout.reschedule(until)


def _wrong_size(how: str) -> UploadRefused:
    return UploadRefused(
        "upload_size_mismatch",
        f"The parts of the result have {how} bytes than their manifests say: check the store.",
    )


MAX_PUT_BYTES: Final = 5_000_000_000
"""Maximum size of one PUT (S3: 5 GB). A larger result is refused before anything is sent."""

_STORED: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT})
_MAX_ODD_ETAGS: Final = 3
"""After this many ETags in a row that are not the MD5, the store uses other ETags: damaged bodies are rarer."""
_NO_EXPECTATION: Final = "upload_expectation_failed"


class HttpUploader:
    """Puts files behind pre-signed URLs.

    Args:
        session: Made by ``open_session(..., purpose="result")``.
        settings: Timeouts, minimum rate, tries.
        clock: Now, in UTC.
        metrics: Where bytes and repeated tries are counted, if anywhere.
        circuit: Refuses uploads while their host keeps failing.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: TransferParameters,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._circuit = circuit or Circuits().of("", "result")
        self._odd_hosts: set[str] = set()

    async def put(self, target: UrlSource, *, size: int, body: BodySource) -> str:
        """PUT ``size`` bytes and return the ETag (see :class:`pipeline.jobs.transfer.Uploader`).

        Memory holds only a few pieces of ``body``. Errors of ``body`` are raised unchanged.
        """
        if size > MAX_PUT_BYTES:
            raise UploadRefused(
                "upload_too_large",
                f"The result has {size} bytes; one upload to result_upload_url takes at most {MAX_PUT_BYTES}.",
            )
        tries = Tries(self._settings, UPLOAD, self._clock, self._metrics)
        expect, odd_etags = self._settings.expect_continue, 0
        while True:
            signed = await next_url(target, UPLOAD, self._clock)
            attempt = _Attempt(self._session, self._settings, self._clock, signed, expect=expect)
            sending = attempt.prepare(body, size, self._metrics)
            failure: TransientError
            try:
                with self._circuit.call(attempt.host) as call:
                    answered = await self._answer(attempt, sending, odd_etags)
                if answered.proof is Proof.STORED:
                    return answered.etag
                odd_etags += 1
                failure = _CORRUPTED
            except CircuitOpen:
                raise
            except UploadRefused as refused:
                if refused is not sending.error:
                    call.succeeded()
                if refused is sending.error or not await renewed(target, signed):
                    raise
                failure = as_transient(refused)
            except TransientError as error:
                if error is sending.error:
                    raise
                failure = error
            expect = expect and not attempt.unexpected
            await tries.after(failure, signed.deadline)

    async def _answer(self, attempt: _Attempt, sending: Sending, odd_etags: int) -> _Answered:
        """Make one attempt. After a few ETags that are not the body's MD5, send a HEAD to check the stored object.

        Raises:
            UploadRefused: HEAD does not show it either, so another PUT would not help.
        """
        answered = await attempt.run(sending)
        most = 1 if attempt.host in self._odd_hosts else _MAX_ODD_ETAGS
        if answered.proof is not Proof.UNKNOWN or odd_etags + 1 < most:
            return answered
        proof = await attempt.head(sending, answered.etag)
        if proof is Proof.UNKNOWN:
            raise UploadRefused(
                "upload_etag_unknown",
                "The store of result_upload_url answers with an ETag of 32 hexadecimal digits that is not the MD5 of "
                "the result, gives no other checksum, and does not answer HEAD with this URL. So it is unknown whether "
                "it has the whole result. If its ETags are not MD5s, set transfer.etag_is_md5 = false.",
            )
        if proof is Proof.STORED:
            self._odd_hosts.add(attempt.host)  # its ETags are not MD5s: the next result needs fewer tries
        return replace(answered, proof=proof)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A success answer of the store."""

    etag: str
    proof: Proof


class _Attempt:
    """One PUT.

    Attributes:
        host: Host of the URL.
        unexpected: Whether the other side seems not to support ``Expect: 100-continue``.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: TransferParameters,
        clock: Callable[[], datetime],
        signed: SignedUrl,
        *,
        expect: bool,
    ) -> None:
        self.unexpected = False
        self._session = session
        self._settings = settings
        self._clock = clock
        self._url = signed.url.get_secret_value()
        self.host = host_of(self._url)
        self._expect = expect
        self._pace = Pace(settings, (signed.deadline - clock()).total_seconds())
        self._timeout = asyncio.timeout_at(
            self._pace.within(settings.connect_timeout_seconds + settings.read_timeout_seconds)
        )

    def prepare(self, body: BodySource, size: int, metrics: Metrics | None) -> Sending:
        """Return the body for this attempt."""
        # when the client takes the last piece, earlier ones may still be in buffers on both sides
        answer_seconds = self._settings.read_timeout_seconds + self._settings.rate_window_seconds
        return Sending(
            body, size, pace=self._pace, timeout=self._timeout, answer_seconds=answer_seconds, metrics=metrics
        )

    async def run(self, sending: Sending) -> _Answered:
        """Send the body and return the answer. Errors of the body's source are raised unchanged."""
        try:
            return await self._send(sending)
        finally:
            await sending.close()

    async def head(self, sending: Sending, etag: str) -> Proof:
        """Send a HEAD with the same URL. Most stores refuse it, because the signature covers the method."""
        try:
            async with self._session.head(
                request_url(self._url), allow_redirects=False, timeout=self._settings.client_timeout
            ) as response:
                if response.status != HTTPStatus.OK:
                    return Proof.UNKNOWN
                return proof_of_head(response.headers, await sending.digests(), etag)
        except (aiohttp.ClientError, OSError):
            return Proof.UNKNOWN

    async def _send(self, sending: Sending) -> _Answered:
        failure: PipelineError
        try:
            answer = await translated(self._exchange(sending), UPLOAD)
        except TransientError as error:
            failure = error
        else:
            if isinstance(answer, Refusal):
                raise self._refused(answer)
            if sending.whole:
                proof = proof_of_put(answer, await sending.digests(), etag_is_md5=self._settings.etag_is_md5)
                return _Answered(answer.get("ETag", ""), proof)
            failure = HostUnavailable(
                "upload_cut", "Host of result_upload_url: it answered before it had the whole body."
            )
        raise sending.error if isinstance(sending.error, Exception) else failure

    async def _exchange(self, sending: Sending) -> Mapping[str, str] | Refusal:
        """Return the headers of a success, or the refusal, which may arrive before the whole body was sent."""
        try:
            async with self._timeout:
                response = await self._put(sending)
                try:
                    refusal = await refusal_of(response, self._clock)
                    # S3 may answer 200 and then fail: the body shows it
                    if response.status not in _STORED or refusal.is_error:
                        return refusal
                    if refusal.is_cut and not (await sending.digests()).are_of(response.headers.get("ETag", "")):
                        raise HostUnavailable("upload_cut", "Host of result_upload_url: its answer broke off.")
                    return response.headers
                finally:
                    # this also stops sending a refused body; `async with` would wait for the end of it
                    response.close()
        except TimeoutError:
            if not self._timeout.expired():
                raise
        raise self._overdue(sending)

    async def _put(self, sending: Sending) -> aiohttp.ClientResponse:
        return await self._session.put(
            request_url(self._url),
            data=sending.pieces,
            # without a length, the client sends an iterator in chunks, which S3 refuses
            headers={"Content-Length": str(sending.size)},
            skip_auto_headers=("Content-Type",),
            expect100=self._expect,
            allow_redirects=False,
            timeout=self._settings.connecting_timeout,
        )

    def _overdue(self, sending: Sending) -> TransientError:
        if sending.begun and not sending.whole:
            return self._pace.overdue(UPLOAD)
        self.unexpected = not sending.begun
        return HostUnavailable("upload_timeout", "Host of result_upload_url: the other side does not answer in time.")

    def _refused(self, refusal: Refusal) -> PipelineError:
        failure = failure_of(refusal, UPLOAD, self._url, self._clock())
        self.unexpected = failure.code == _NO_EXPECTATION
        if failure.code == "upload_checksum_refused" and demands_empty_body(self._url):
            return UploadRefused(
                failure.code,
                "result_upload_url carries x-amz-checksum-crc32 with AAAAAA==, the checksum of an empty body; the "
                f"store enforces it ({refusal.status} {refusal.code}), so no result can be put there. Sign the URL "
                "without a checksum (AWS SDK: requestChecksumCalculation WHEN_REQUIRED).",
            )
        return failure


_CORRUPTED: Final = TransientError(
    "upload_corrupted",
    "The ETag or checksum that the store of result_upload_url answers is not that of the result. The pipeline sends "
    "it again.",
)
