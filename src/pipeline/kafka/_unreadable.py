"""Batches that the client cannot take apart: passed over, so that whoever may write to a topic cannot stop its readers.

A batch comes from one producer. One with a header name that is not UTF-8, or in a codec that is not installed, would
raise the same error at every restart. It is not lost: it stays in its topic, and the log says where. A wrong checksum
is another matter: the broker has checked it, so the storage is damaged, and that stops the process.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

import structlog
from aiokafka.consumer import fetcher
from aiokafka.errors import UnsupportedCodecError

log = structlog.get_logger(__name__)

# OSError: gzip's name for a bad header
_UNREADABLE: Final = (UnicodeDecodeError, UnsupportedCodecError, zlib.error, EOFError, OSError)


class _Batches:
    """The batches of one fetch; remembers the one in work, of which the error says nothing."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.current: Any = None

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> Any:
        self.current = self._batches.next_batch()
        return self.current


class ReadableRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """The client's iterator over one partition's fetched records, going on behind a batch that cannot be read."""

    _records: Any
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        batches = self._records = _Batches(self._records)
        while True:
            try:
                yield from super()._unpack_records()
            except _UNREADABLE as error:
                following = batches.current.next_offset
                log.error(  # noqa: TRY400 - a traceback through the client says nothing more
                    "batch_passed_over",
                    topic=self._tp.topic,
                    partition=self._tp.partition,
                    first=self.next_fetch_offset,
                    next=following,
                    why=type(error).__name__,
                )
                self.next_fetch_offset = following
            else:
                return


def install() -> None:
    """Let every consumer of this process use it: the client has no other place for it."""
    fetcher.PartitionRecords = ReadableRecords
