"""What makes a storage unusable."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pipeline.errors import FatalError
from pipeline.storage import ObjectInfo, StoreUnavailable
from pipeline.storage.probe import probe
from pipeline.storage.testing import MemoryStore


class Overwriting(MemoryStore):
    """A server that ignores ``If-None-Match``."""

    async def create(self, key: str, data: bytes) -> bool:
        self.objects[key] = data
        return True


class Forgetful(MemoryStore):
    """A server that lists what it had some time ago."""

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix):
            if info.key not in self.objects:
                yield info


async def test_a_storage_that_overwrites_must_not_be_used() -> None:
    store = Overwriting()
    with pytest.raises(FatalError, match=r"store_without_create.*If-None-Match"):
        await probe(store)
    assert store.objects == {}


async def test_a_storage_that_does_not_show_what_it_has_is_not_ready() -> None:
    with pytest.raises(StoreUnavailable, match="strongly consistent"):
        await probe(Forgetful())


async def test_an_unreachable_storage_is_told_as_such() -> None:
    store = MemoryStore()
    store.unavailable = True
    with pytest.raises(StoreUnavailable, match="switched off"):
        await probe(store)
