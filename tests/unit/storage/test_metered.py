"""Every call of the store is measured."""

from __future__ import annotations

import pytest

from pipeline.observability import Metrics
from pipeline.storage import ObjectNotFound, StoreUnavailable
from pipeline.storage.metered import MeteredStore
from pipeline.storage.testing import MemoryStore


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
    for op, times in {"check": 1, "create": 1, "get": 1, "stream": 1, "list": 3, "delete": 1}.items():
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
