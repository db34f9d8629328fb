"""The number of requests that the S3 store makes, counted by a bucket in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.memory_bucket import MemoryBucket, running_bucket

from pipeline.storage import S3Store

KEYS = [f"open/{minute:012d}/acme/{number}" for minute in range(500) for number in range(10)]


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
async def store(bucket: MemoryBucket) -> AsyncIterator[S3Store]:
    async with running_bucket(bucket) as opened:
        yield opened


async def test_a_scan_costs_a_request_for_each_page_that_was_read(bucket: MemoryBucket, store: S3Store) -> None:
    bucket.fill(KEYS)
    assert [info.key async for info in store.scan("open/")] == sorted(KEYS)
    assert bucket.requests == {"list": 5}
    async for info in store.scan("open/", after=KEYS[1200]):
        assert info.key == KEYS[1201]
        break
    assert bucket.requests == {"list": 6}


async def test_deleting_costs_a_request_for_each_thousand(bucket: MemoryBucket, store: S3Store) -> None:
    bucket.fill(KEYS)
    await store.delete_all(KEYS[:2500])
    assert bucket.keys() == sorted(KEYS[2500:])
    assert bucket.requests == {"delete_many": 3}


async def test_a_server_without_bulk_deletion_is_asked_once(bucket: MemoryBucket, store: S3Store) -> None:
    bucket.bulk = False
    bucket.fill(KEYS)
    await store.delete_all(KEYS[:40])
    await store.delete_all(KEYS[40:60])
    assert bucket.keys() == sorted(KEYS[60:])
    assert bucket.requests == {"delete_many": 1, "delete": 60}
