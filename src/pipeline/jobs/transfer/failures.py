"""The errors of a transfer: for a failed try, an unusable URL, or a refusal by the store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, TypeVar

import aiohttp
import structlog

from pipeline.errors import PermanentError, PipelineError, TransientError
from pipeline.jobs.transfer.answers import MAX_ERROR_BYTES, Refusal, Remedy, interpret, read_refusal
from pipeline.jobs.transfer.protocols import SignedUrl, UrlSource
from pipeline.jobs.transfer.settings import TransferParameters
from pipeline.jobs.transfer.urls import signed_headers, signing_time
from pipeline.observability import Metrics
from pipeline.outbound import HostUnavailable


class SourceChanged(TransientError):
    """The input object is not the one that the work began with: start over at its first byte."""


class SourceRefused(PermanentError):
    """The input file cannot be downloaded, or is broken, and another try cannot help."""


class UploadRefused(PermanentError):
    """The result file cannot be uploaded, and another try cannot help."""


_HEADER_NAME: Final = re.compile(r"[a-z0-9-]{1,40}")
_MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Direction:
    """Names and error class of one direction.

    Attributes:
        name: Label of metrics.
        prefix: First part of error codes.
        field: The announcement's field with the URL.
        refused: Class of permanent errors.
        sendable: Signed headers whose values are known here.
    """

    name: Literal["download", "upload"]
    prefix: Literal["source", "upload"]
    field: str
    refused: type[SourceRefused | UploadRefused]
    sendable: frozenset[str]


DOWNLOAD: Final = Direction("download", "source", "input_file_url", SourceRefused, frozenset({"host"}))
UPLOAD: Final = Direction("upload", "upload", "result_upload_url", UploadRefused, frozenset({"host", "content-length"}))


async def next_url(source: UrlSource, direction: Direction, clock: Callable[[], datetime]) -> SignedUrl:
    """Return the newest announced URL, if it can still be used and its signature covers only known headers.

    Raises:
        SourceRefused: The deadline has passed, or the signature covers headers that cannot be sent.
        UploadRefused: The same, for an upload.
    """
    signed = await source()
    if signed.deadline <= clock():
        raise direction.refused(
            f"{direction.prefix}_deadline_passed",
            f"{direction.field} expires too soon to continue (work with it had to end at "
            f"{signed.deadline:%Y-%m-%d %H:%M:%S} UTC).",
        )
    foreign = signed_headers(signed.url.get_secret_value()) - direction.sendable
    if foreign:
        names = ", ".join(sorted(name for name in foreign if _HEADER_NAME.fullmatch(name))[:_MAX_NAMED])
        raise direction.refused(
            f"{direction.prefix}_signed_headers",
            f"{direction.field} is signed for headers whose values are unknown here ({names}). Sign it for host only "
            "(X-Amz-SignedHeaders=host).",
        )
    return signed


log = structlog.get_logger(__name__)

T = TypeVar("T")

_LATER_SECONDS: Final = 5.0
"""Pause before a URL that is not yet valid is tried again, if neither clock gives the time."""
_SKEW_SECONDS: Final = 5.0
"""Messages do not mention a smaller difference of the clocks."""


class NotFound(TransientError):
    """There is no object (yet)."""


class TooSlow(HostUnavailable):
    """Fewer bytes arrived in a time window than the minimum rate requires."""


async def translated(exchange: Awaitable[T], direction: Direction) -> T:
    """Return the result of one step of an exchange; a failure of the network becomes HostUnavailable.

    The foreign exception is dropped, not chained: aiohttp's messages contain the URL with its signature.
    """
    try:
        return await exchange
    except (aiohttp.ClientError, OSError) as error:
        failure = _network_failure(error, direction)
    raise failure


def _network_failure(error: Exception, direction: Direction) -> HostUnavailable:
    match error:
        case aiohttp.ClientSSLError():
            reason, about = "tls_failed", "TLS failed: check the certificate, and network.ca_file"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            reason, about = "proxy_failed", "the egress proxy cannot be reached or refuses"
        case TimeoutError():
            reason, about = "timeout", "the other side does not answer in time"
        case aiohttp.ClientConnectorError():
            reason, about = "unreachable", "no connection can be made"
        case _:
            reason, about = "cut", f"the connection broke ({type(error).__name__})"
    return HostUnavailable(f"{direction.prefix}_{reason}", f"Host of {direction.field}: {about}.")


async def refusal_of(response: aiohttp.ClientResponse, clock: Callable[[], datetime]) -> Refusal:
    """Read an error answer and a bounded part of its body, which may break off."""
    document, is_cut = b"", False
    try:
        while len(document) < MAX_ERROR_BYTES and (piece := await response.content.read(MAX_ERROR_BYTES)):
            document += piece
    except (aiohttp.ClientError, OSError):
        log.debug("error_document_cut", status=response.status)
        is_cut = True
    return replace(read_refusal(response.status, response.headers, document[:MAX_ERROR_BYTES], clock()), is_cut=is_cut)


def failure_of(refusal: Refusal, direction: Direction, url: str, now: datetime) -> PipelineError:
    """Return the error for a refusal. Its message never quotes the document."""
    meaning = interpret(refusal)
    code = f"{direction.prefix}_{meaning.reason}"
    answer = f"{refusal.status} {refusal.code}".strip()
    skew = _skew(refusal, now) if meaning.reason in {"expired", "not_yet_valid"} else ""
    message = f"{direction.field} {meaning.about} (the store answered {answer}){skew}."
    match meaning.remedy:
        case Remedy.AGAIN:
            return HostUnavailable(code, message, retry_after=refusal.retry_after)
        case Remedy.LATER:
            return TransientError(code, message, retry_after=_until_valid(refusal, url, now))
        case Remedy.MISSING if direction is DOWNLOAD:
            return NotFound(code, message, retry_after=refusal.retry_after)
        case Remedy.CHANGED | Remedy.RANGE if direction is DOWNLOAD:
            return SourceChanged(code, message)
        case _:
            return direction.refused(code, message)


def _until_valid(refusal: Refusal, url: str, now: datetime) -> float:
    begins = signing_time(url)
    left = (begins - (refusal.server_time or now)).total_seconds() if begins else 0.0
    return left + 1 if left > 0 else _LATER_SECONDS


def _skew(refusal: Refusal, now: datetime) -> str:
    seconds = (refusal.server_time - now).total_seconds() if refusal.server_time else 0.0
    if abs(seconds) < _SKEW_SECONDS:
        return ""
    return f"; its clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} ours"


log = structlog.get_logger(__name__)


class Tries:
    """Counts failed tries within one call, and waits between them."""

    def __init__(
        self, settings: TransferParameters, direction: Direction, clock: Callable[[], datetime], metrics: Metrics | None
    ) -> None:
        self._retry = settings.retry
        self._max_not_found_tries = settings.max_not_found_tries
        self._direction = direction
        self._clock = clock
        self._metrics = metrics
        self._failed = 0
        self._not_found = 0

    def progressed(self) -> None:
        """Forget earlier failures, because enough bytes were transferred since then."""
        self._failed = 0

    async def after(self, failure: TransientError, deadline: datetime) -> None:
        """Wait before the next try.

        Raises:
            TransientError: ``failure``, if no tries are left, or the requested pause is too long for one call.
            SourceRefused: The object is still missing after several tries.
        """
        self._failed += 1
        if isinstance(failure, NotFound):
            self._not_found += 1
            if self._not_found >= self._max_not_found_tries:
                raise self._direction.refused(failure.code, failure.message)
        elif self._failed - self._not_found >= self._retry.max_tries:
            raise failure
        if failure.retry_after is not None and failure.retry_after > self._retry.max_seconds:
            raise failure
        pause = self._retry.policy.pause(self._failed, failure.retry_after)
        pause = min(pause, max(0.0, (deadline - self._clock()).total_seconds()))
        log.warning(
            "transfer_repeated",
            direction=self._direction.name,
            code=failure.code,
            tries=self._failed,
            pause=round(pause, 3),
        )
        if self._metrics is not None:
            self._metrics.transfer_retries.labels(self._direction.name, failure.code).inc()
        await asyncio.sleep(pause)


async def renewed(source: UrlSource, used: SignedUrl) -> bool:
    """Return whether a newer announcement has another URL than the refused one."""
    return (await source()).url != used.url


def as_transient(refused: PermanentError) -> TransientError:
    """Turn the refusal of an old URL into a transient error, so that the new URL is tried."""
    return TransientError(refused.code, refused.message)
