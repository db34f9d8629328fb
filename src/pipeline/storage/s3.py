"""Objects in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from pipeline.storage.any_store import Entry, probe, walk
from pipeline.storage.protocols import (
    ObjectInfo,
    ObjectNotFound,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    check_folder,
    check_key,
    check_prefix,
    creation_unknown,
)
from pipeline.storage.s3_client import client_of
from pipeline.storage.settings import S3Settings

if TYPE_CHECKING:
    from obstore import BytesStream, ListResult, ObjectMeta

T = TypeVar("T")

_PAGE: Final = 1000
"""Objects per page of a listing, which is the server's own limit."""

_RETRIES: Final = 3
"""Immediate retries of one request, for short interruptions. The callers retry with longer pauses."""

_CLOSE_PAUSE_SECONDS: Final = 0.1
"""If a process ends right after the client's last call, the client's Rust runtime aborts the interpreter (exit code
134) in up to a fifth of the runs. With this pause it never did in 60 runs (obstore 0.12)."""

_CONFLICT_PAUSES: Final = (0.05, 0.2, 0.5)
"""Seconds between the tries of a creation that is refused although there is no object."""

_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_RETRY_SECONDS: Final = 5.0

_NO_SUCH_REQUEST: Final = ("400", "405", "501")
"""Answers of servers that do not support bulk deletion, or its checksum. After any other error, it is tried again."""

_FULL: Final = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded")
_INSUFFICIENT_STORAGE: Final = "507"
_FORBIDDEN: Final = ("401", "403")
_ADVICE: Final = {
    "QuotaExceeded": "the bucket's quota is used up: raise it or delete objects; the work then continues by itself",
    "XMinioStorageFull": "the server's disks are full: free space; the work then continues by itself",
    "XMinioAdminBucketQuotaExceeded": "the bucket's quota is used up: raise it or delete objects",
    "NoSuchBucket": "the bucket does not exist: create it, or correct store.bucket",
    "InvalidAccessKeyId": "the server does not know the access key: correct store.access_key_id",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: correct store.secret_access_key",
    "AccessDenied": "access denied: allow this key to get, put, list and delete objects below the prefix",
    "ExpiredToken": "the temporary keys have expired: renew them",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": "the bucket is in another region: correct store.region",
    "NotImplemented": "the server does not support conditional writes: use one that honours If-None-Match on PUT",
    "SlowDown": "the server asks to slow down",
}


class S3Store:
    """Objects in a bucket. Creation is a PUT with ``If-None-Match: *``.

    Each request has a timeout (``request_timeout_seconds``) and a few immediate retries. S3 has strongly consistent
    reads. :meth:`check` detects servers whose reads are not, and servers that ignore the condition.
    """

    def __init__(self, settings: S3Settings, *, retries: int = _RETRIES) -> None:
        """Make the client, without contacting the server.

        Raises:
            FatalError: ``ca_file`` cannot be read.
        """
        self._name = f"s3://{settings.bucket}/{settings.prefix}"
        total = timedelta(seconds=settings.request_timeout_seconds)
        self._client = client_of(settings, total=total, retries=retries)
        # a client for bulk deletions only: that request needs a checksum that not every server accepts
        self._bulk = client_of(settings, total=total, retries=retries, bulk=True)
        # a read may take long, because its consumer (an upload) may be slow: it lasts as long as bytes arrive
        self._reading = client_of(settings, total=timedelta(days=1), retries=retries)
        self._deadline = (settings.request_timeout_seconds + 5.0) * (retries + 1)
        self._piece_deadline = settings.request_timeout_seconds + 5.0
        self._deletes_in_bulk = True

    def __repr__(self) -> str:
        """Name the bucket, never the keys."""
        return f"S3Store({self._name!r})"

    async def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore; one request, and more only if it was refused or its answer was lost.

        After a refusal, it reads the object back, and the object decides: the client may have repeated a request whose
        first answer was lost. If there is no object, it tries again: S3 also refuses (409
        ``ConditionalRequestConflict``) while another request for the key is in flight, and that one may still fail.
        """
        for pause in (*_CONFLICT_PAUSES, None):
            try:
                with self._translated("create", check_key(key)):
                    await self._within(obstore.put_async(self._client, key, data, mode="create", use_multipart=False))
            except _Refused:
                holds = await self._holds(key, data)
            except StoreUnavailable:
                holds = await self._holds(key, data)
                if holds is None:
                    raise  # the object may still appear: the caller repeats, and that call recognises its data
            else:
                return True
            if holds is not None:
                return holds
            if pause is not None:
                await asyncio.sleep(pause)
        raise creation_unknown(key, self._name)

    async def _holds(self, key: str, data: bytes) -> bool | None:
        """Return whether the object with this key holds the data; None if there is no object."""
        try:
            return await self.get(key) == data
        except ObjectNotFound:
            return None

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See ObjectStore; one request."""
        with self._translated("read", check_key(key)):
            try:
                if start == 0 and end is None:
                    whole = await self._within(obstore.get_async(self._client, key))
                    return bytes(await self._within(whole.bytes_async()))
                if end is None:
                    tail = await self._within(
                        obstore.get_async(self._client, key, options={"range": {"offset": start}})
                    )
                    return bytes(await self._within(tail.bytes_async()))
                if end <= start:
                    await self._within(obstore.head_async(self._client, key))
                    return b""
                return bytes(await self._within(obstore.get_range_async(self._client, key, start=start, end=end)))
            except BaseError as error:
                if _lacks_range(error):
                    return b""
                raise

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        """See ObjectStore.

        When a read is cut, the next attempt continues at the same byte, as long as each attempt reads at least one
        byte. This is safe because objects never change.
        """
        done = 0
        while True:
            begun = done
            try:
                async with aclosing(self._stream_from(check_key(key), done, chunk_bytes)) as pieces:
                    async for piece in pieces:
                        done += len(piece)
                        yield piece
            except StoreUnavailable:
                if done == begun:
                    raise
            else:
                return

    async def _stream_from(self, key: str, start: int, chunk_bytes: int) -> AsyncGenerator[bytes, None]:
        with self._translated("read", key):
            try:
                answer = await self._within(
                    obstore.get_async(self._reading, key, options={"range": {"offset": start}} if start else None)
                )
            except BaseError as error:
                if start and _lacks_range(error):
                    return
                raise
            body: BytesStream = answer.stream(min_chunk_size=chunk_bytes)
            while (piece := await self._next(body)) is not None:
                for cut in range(0, len(piece), chunk_bytes):
                    yield bytes(piece[cut : cut + chunk_bytes])

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ObjectStore.

        It makes one request for up to 1,000 objects. If there are more, it lists the files of one folder page by page.
        From the first folder among them, it continues folder by folder, because some servers list in the order of
        folders, not of keys. This costs one request per folder, with the names of one folder in memory.
        """
        check_prefix(prefix)
        last = ""
        page: list[ObjectInfo] = []
        async for some in self._flat(prefix):
            page.extend(some)
            if len(page) < _PAGE:
                continue
            if not _one_folder(page, prefix):
                break
            for info in page:
                yield info
            last, page = page[-1].key, []
        else:
            for info in sorted(page, key=_key_of):
                yield info
            return
        async for info in walk(self._read_folder, prefix, after=last):
            yield info

    async def _flat(self, prefix: str) -> AsyncIterator[Sequence[ObjectInfo]]:
        """Yield pages in the server's order. The client can only list whole folders."""
        folder = prefix[: prefix.rfind("/") + 1]
        offset = None if prefix == folder else prefix[:-1]
        with self._translated("list", prefix):
            found = obstore.list(self._client, folder or None, offset=offset or None, chunk_size=_PAGE)
            while (page := await self._next(found)) is not None:
                yield [_info(meta) for meta in page if meta["path"].startswith(prefix)]
                if not page[-1]["path"].startswith(prefix) and page[-1]["path"] > prefix:
                    return  # every server lists names with a common prefix together

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ObjectStore; a request for every 1,000 objects."""
        check_folder(prefix)
        with self._translated("list", prefix):
            found = obstore.list(self._client, prefix or None, offset=after or None, chunk_size=_PAGE)
            while (page := await self._next(found)) is not None:
                for meta in page:
                    yield _info(meta)

    async def folders(self, prefix: str) -> Sequence[str]:
        """See ObjectStore; a request for every 1,000 folders and objects directly below the prefix."""
        found = await self._folder(check_prefix(prefix))
        return sorted(path.removeprefix(prefix) for path in found["common_prefixes"])

    async def _folder(self, folder: str) -> ListResult[Sequence[ObjectMeta]]:
        with self._translated("list", folder):
            return await self._within(obstore.list_with_delimiter_async(self._client, folder or None))

    async def _read_folder(self, folder: str) -> AsyncIterator[Entry]:
        found = await self._folder(folder)
        folders = [Entry(f"{path}/", None) for path in found["common_prefixes"]]
        files = [Entry(meta["path"], meta["size"], meta["last_modified"]) for meta in found["objects"]]
        for entry in sorted([*folders, *files]):
            yield entry

    async def replace(self, key: str, data: bytes) -> None:
        """See ObjectStore; one request."""
        with self._translated("replace", check_key(key)):
            await self._within(obstore.put_async(self._client, key, data, use_multipart=False))

    async def delete(self, key: str) -> None:
        """See ObjectStore; one request."""
        with self._translated("delete", check_key(key)):
            try:
                await self._within(obstore.delete_async(self._client, key))
            except FileNotFoundError as error:
                if not _missing_object(error):
                    raise

    async def delete_all(self, keys: Sequence[str]) -> None:
        """See ObjectStore; one request per 1,000 keys, or one per key if the server does not support bulk requests."""
        for key in keys:
            check_key(key)
        unknown = False
        if len(keys) > 1 and self._deletes_in_bulk:
            with self._translated("delete", keys[0]):
                try:
                    await self._within(obstore.delete_async(self._bulk, list(keys)))
                except BaseError as error:
                    unknown = _found(_STATUS, error) in _NO_SUCH_REQUEST
                    if not unknown:
                        raise
                else:
                    return
        for key in keys:
            await self.delete(key)
        # single deletions worked, so the server is available and only lacks bulk requests
        self._deletes_in_bulk &= not unknown

    async def check(self) -> None:
        """See ObjectStore; about six requests."""
        await probe(self)

    async def close(self) -> None:
        """Release the client, then pause: an interpreter that ends right after the last call may abort."""
        del self._client, self._reading, self._bulk
        await asyncio.sleep(_CLOSE_PAUSE_SECONDS)

    async def _within(self, request: Awaitable[T]) -> T:
        # the client's own limits do not cover all of its waits (e.g. for credentials)
        async with asyncio.timeout(self._deadline):
            return await request

    async def _next(self, pages: AsyncIterator[T]) -> T | None:
        async with asyncio.timeout(self._piece_deadline):
            return await anext(pages, None)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except AlreadyExistsError as error:
            raise _Refused from error
        except (BaseError, FileNotFoundError) as error:
            # do not chain the client's error: its text may contain signed data
            if _missing_object(error):
                raise ObjectNotFound(key) from None
            raise _unavailable(error, verb, key, self._name) from None
        except TimeoutError as error:
            raise StoreUnavailable(f"Could not {verb} {key!r} in {self._name}: no answer in time") from error


class _Refused(Exception):
    """The server refused the creation: the object exists, or another request for it is in flight."""


def _info(meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"])


def _key_of(info: ObjectInfo) -> str:
    return info.key


def _one_folder(page: Sequence[ObjectInfo], prefix: str) -> bool:
    """Return whether all objects are in the prefix's own folder. Every server lists such objects in key order."""
    depth = prefix.count("/")
    return all(info.key.count("/") == depth for info in page)


def _lacks_range(error: Exception) -> bool:
    """Return whether the object ends before the requested range begins."""
    return _found(_STATUS, error) == "416"


def _missing_object(error: Exception) -> bool:
    """Return whether the object is missing, and not the bucket."""
    return isinstance(error, FileNotFoundError) and _found(_CODE, error) != "NoSuchBucket"


def _unavailable(error: Exception, verb: str, key: str, bucket: str) -> StoreUnavailable:
    """Return the error to raise. It omits the client's text, which may contain signed data."""
    code, status = _found(_CODE, error), _found(_STATUS, error)
    if code in _ADVICE:
        reason = f"{_ADVICE[code]} ({code})"
    elif status:
        reason = f"the server answered {status} {code}".rstrip()
    else:
        reason = f"no usable answer ({type(error).__name__}): check that the endpoint is right and the server runs"
    message = f"Could not {verb} {key!r} in {bucket}: {reason}"
    if code in _FULL or status == _INSUFFICIENT_STORAGE:
        return StoreFull(message)
    if status in _FORBIDDEN:
        return StoreForbidden(message)
    return StoreUnavailable(message, retry_after=_RETRY_SECONDS if code == "SlowDown" else None)


def _found(pattern: re.Pattern[str], error: Exception) -> str:
    match = pattern.search(str(error))
    return match[1] if match else ""
