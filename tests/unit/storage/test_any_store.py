"""What works with any store: checking it, listing it in order, measuring it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pipeline.errors import FatalError
from pipeline.observability import Metrics
from pipeline.storage import MeteredStore, ObjectInfo, ObjectNotFound, StoreUnavailable
from pipeline.storage.any_store import Entry, probe, walk
from pipeline.storage.testing import MemoryStore


class Overwriting(MemoryStore):
    """A server that ignores ``If-None-Match``."""

    async def create(self, key: str, data: bytes) -> bool:
        self.objects[key] = data
        return True


class Forgetful(MemoryStore):
    """A server whose listings are out of date."""

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


async def test_an_unreachable_storage_is_reported_as_such() -> None:
    store = MemoryStore()
    store.unavailable = True
    with pytest.raises(StoreUnavailable, match="switched off"):
        await probe(store)


async def test_a_walk_takes_up_after_a_key_and_reads_no_folder_in_vain() -> None:
    tree = {"": ["a-", "a/", "b/", "c"], "a/": ["a/1", "a/2"], "b/": ["b/x/"], "b/x/": ["b/x/1", "b/x/2"]}
    read: list[str] = []

    async def read_folder(folder: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        read.append(folder)
        for path in tree[folder]:
            yield Entry(path, None if path.endswith("/") else 1)

    assert [info.key async for info in walk(read_folder, "", after="b/x/1")] == ["b/x/2", "c"]
    assert read == ["", "b/", "b/x/"]


def counted(metrics: Metrics, op: str, result: str) -> float:
    name, labels = "pipeline_store_op_seconds_count", {"op": op, "result": result}
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_each_operation_does_what_the_store_does_and_is_counted() -> None:
    metrics = Metrics()
    store = MeteredStore(MemoryStore(), metrics.store_op_seconds)
    await store.check()
    assert await store.create("a/b", b"data")
    assert await store.get("a/b", start=1, end=3) == b"at"
    assert [piece async for piece in store.stream("a/b", chunk_bytes=3)] == [b"dat", b"a"]
    assert [info.key async for info in store.list("a/")] == ["a/b"]
    assert [info.key async for info in store.list("z/")] == []
    assert len(await store.folders("")) == 1
    await store.delete("a/b")
    await store.close()
    for op, times in {"check": 1, "create": 1, "get": 1, "stream": 1, "list": 2, "folders": 1, "delete": 1}.items():
        assert counted(metrics, op, "ok") == times


async def test_a_missing_object_is_an_answer_and_an_absent_store_a_failure() -> None:
    metrics, memory = Metrics(), MemoryStore()
    store = MeteredStore(memory, metrics.store_op_seconds)
    with pytest.raises(ObjectNotFound):
        await store.get("missing")
    memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await store.get("missing")
    assert (counted(metrics, "get", "ok"), counted(metrics, "get", "failed")) == (1, 1)


async def test_the_problem_is_that_of_the_last_call_of_each_operation() -> None:
    """A full store answers reads, which says nothing about writes. A failure without another try is forgotten."""
    memory, now = MemoryStore(), [0.0]
    store = MeteredStore(memory, Metrics().store_op_seconds, clock=lambda: now[0])
    assert store.problem is None
    memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await store.create("a", b"")
    memory.unavailable = False
    with pytest.raises(ObjectNotFound):
        await store.get("missing")
    assert str(store.problem) == "store_unavailable: The store is switched off by the test"
    await store.create("a", b"")
    assert store.problem is None
    memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await store.get("a")
    now[0] = 121.0
    assert store.problem is None
