"""Objects in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from pipeline.storage._s3_client import client_of
from pipeline.storage._s3_errors import lacks_range, missing_object, unavailable
from pipeline.storage.errors import ObjectNotFound, StoreUnavailable
from pipeline.storage.keys import check_key, check_prefix
from pipeline.storage.probe import probe
from pipeline.storage.protocols import ObjectInfo
from pipeline.storage.settings import S3Settings
from pipeline.storage.walk import Entry, walk

if TYPE_CHECKING:
    from obstore import BytesStream, ListResult, ObjectMeta

T = TypeVar("T")

_PAGE: Final = 1000
"""Objects in one answer to a listing; the server's own limit."""

_RETRIES: Final = 3
"""Immediate repetitions of one request: enough for a short hiccup; whoever called retries with longer pauses."""

_CLOSE_PAUSE_SECONDS: Final = 0.1
"""The client's Rust runtime aborts the interpreter (exit code 134) in up to a fifth of the runs that end right after
its last call; measured with obstore 0.12: none in 60 with this pause."""


class S3Store:
    """A bucket. Creation is a PUT with ``If-None-Match: *``.

    Each request has a timeout (``request_timeout_seconds``) and a few immediate repetitions. Reads are strongly
    consistent in S3; :meth:`check` finds servers where they are not, or that ignore the condition.
    """

    def __init__(self, settings: S3Settings, *, retries: int = _RETRIES) -> None:
        """Make the client; nothing is contacted yet.

        Raises:
            FatalError: ``ca_file`` cannot be read.
        """
        self._name = f"s3://{settings.bucket}/{settings.prefix}"
        self._client = client_of(settings, total=timedelta(seconds=settings.request_timeout_seconds), retries=retries)
        # A read goes on as long as bytes come: its taker may be slow (the result's upload), so no limit on the whole.
        self._reading = client_of(settings, total=timedelta(days=1), retries=retries)
        self._deadline = (settings.request_timeout_seconds + 5.0) * (retries + 1)
        self._piece_deadline = settings.request_timeout_seconds + 5.0

    def __repr__(self) -> str:
        """Name the bucket, never the keys."""
        return f"S3Store({self._name!r})"

    async def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore; one request, a second one if the first was refused or its answer was lost."""
        try:
            with self._translated("create", check_key(key)):
                await self._within(obstore.put_async(self._client, key, data, mode="create", use_multipart=False))
        except _Refused:
            # also when the client repeated a request whose first answer was lost: then the object is our own
            return await self._stands(key, data) or False
        except StoreUnavailable:
            stands = await self._stands(key, data)
            if stands is None:
                raise  # it may still land: the caller repeats, and this call's data is recognised then
            return stands
        return True

    async def _stands(self, key: str, data: bytes) -> bool | None:
        """Whether this very object stands, or another one, or (None) none."""
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
                if lacks_range(error):
                    return b""
                raise

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncIterator[bytes]:
        """See ObjectStore.

        A read that is cut is taken up again where it was, as long as each attempt brings at least a byte; that is safe,
        since objects never change.
        """
        done = 0
        while True:
            begun = done
            try:
                async for piece in self._stream_from(check_key(key), done, chunk_bytes):
                    done += len(piece)
                    yield piece
            except StoreUnavailable:
                if done == begun:
                    raise
            else:
                return

    async def _stream_from(self, key: str, start: int, chunk_bytes: int) -> AsyncIterator[bytes]:
        with self._translated("read", key):
            try:
                answer = await self._within(
                    obstore.get_async(self._reading, key, options={"range": {"offset": start}} if start else None)
                )
            except BaseError as error:
                if start and lacks_range(error):
                    return
                raise
            body: BytesStream = answer.stream(min_chunk_size=chunk_bytes)
            while (piece := await self._next(body)) is not None:
                for cut in range(0, len(piece), chunk_bytes):
                    yield bytes(piece[cut : cut + chunk_bytes])

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ObjectStore.

        One request for up to 1,000 objects. Beyond that, files of one folder come page by page; as soon as folders are
        among them, it goes on folder by folder (a request each, names of one folder in memory): some servers list in
        the order of folders, not of keys.
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
        """Yield pages as the server orders them; the client itself lists whole folders only."""
        folder = prefix[: prefix.rfind("/") + 1]
        offset = None if prefix == folder else prefix[:-1]
        with self._translated("list", prefix):
            found = obstore.list(self._client, folder or None, offset=offset or None, chunk_size=_PAGE)
            while (page := await self._next(found)) is not None:
                yield [_info(meta) for meta in page if meta["path"].startswith(prefix)]
                if not page[-1]["path"].startswith(prefix) and page[-1]["path"] > prefix:
                    return  # names with a common beginning stand together in every server's order

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
        for entry in sorted([*folders, *(Entry(meta["path"], meta["size"]) for meta in found["objects"])]):
            yield entry

    async def delete(self, key: str) -> None:
        """See ObjectStore; one request."""
        with self._translated("delete", check_key(key)):
            try:
                await self._within(obstore.delete_async(self._client, key))
            except FileNotFoundError as error:
                if not missing_object(error):
                    raise

    async def check(self) -> None:
        """See ObjectStore; about six requests."""
        await probe(self)

    async def close(self) -> None:
        """Let go of the client, then pause: an interpreter that ends right after the last call may abort."""
        del self._client, self._reading
        await asyncio.sleep(_CLOSE_PAUSE_SECONDS)

    async def _within(self, request: Awaitable[T]) -> T:
        # the client has its own limits; this one holds where it waits for something they do not cover (credentials)
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
            # without its cause: the client's text may hold what was signed
            if missing_object(error):
                raise ObjectNotFound(key) from None
            raise unavailable(error, verb, key, self._name) from None
        except TimeoutError as error:
            raise StoreUnavailable(f"Could not {verb} {key!r} in {self._name}: no answer in time") from error


class _Refused(Exception):
    """The name is taken."""


def _info(meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"])


def _key_of(info: ObjectInfo) -> str:
    return info.key


def _one_folder(page: Sequence[ObjectInfo], prefix: str) -> bool:
    """Whether all are files of the prefix's own folder: then every server's order is that of the keys."""
    depth = prefix.count("/")
    return all(info.key.count("/") == depth for info in page)
