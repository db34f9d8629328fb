"""The S3 store over a real server whose answers get lost, refused, delayed or cut into small pages on the way."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from support.seaweedfs import SeaweedFS
from support.store_faults import Asked, Fault, FaultyProxy, faulty, settings_of

from pipeline.storage import ObjectNotFound, S3Store, StoreUnavailable
from pipeline.storage import s3 as module

NAMES = ["a+b", "a-b/c", "a.b", "a/b", "a/c.d", "a/d-e", "a/d/e", "a/d0", "a0", "ab", "b/1", "b/10", "b/2", "z"]
World = tuple[FaultyProxy, S3Store]


@pytest.fixture
async def world(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_CONFLICT_PAUSES", (0.01, 0.01))
    settings = settings_of(
        seaweedfs.endpoint,
        seaweedfs.bucket,
        seaweedfs.access_key,
        seaweedfs.secret_key,
        prefix=f"faults/{uuid.uuid4().hex}",
    )
    async with faulty(settings, retries=0) as found:
        yield found


def once(proxy: FaultyProxy, fault: Fault, *, times: int = 1) -> None:
    """Let the next requests that it makes sense for meet a fault."""
    left = times

    def choose(asked: Asked) -> Fault | None:
        nonlocal left
        if left == 0 or not asked.can(fault):
            return None
        left -= 1
        return fault

    proxy.choose = choose


async def test_the_proxy_passes_signed_requests_on(world: World) -> None:
    _, store = world
    await store.check()


async def test_a_creation_whose_answer_is_lost_is_recognised(world: World) -> None:
    proxy, store = world
    once(proxy, "lost answer")
    assert await store.create("k", b"mine") is True
    once(proxy, "lost answer")
    assert await store.create("k", b"other") is False
    assert await store.get("k") == b"mine"


async def test_a_creation_that_never_arrived_is_unknown_and_can_be_repeated(world: World) -> None:
    proxy, store = world
    once(proxy, "lost request")
    with pytest.raises(StoreUnavailable):
        await store.create("k", b"mine")
    assert await store.create("k", b"mine") is True


@pytest.mark.parametrize("fault", ["409", "412"])
async def test_a_refused_creation_without_an_object_is_tried_again(world: World, fault: Fault) -> None:
    """Another creation was under way, and failed: that was no loss."""
    proxy, store = world
    once(proxy, fault, times=2)
    assert await store.create("k", b"mine") is True
    once(proxy, fault)
    assert await store.create("k", b"mine") is True
    assert await store.create("k", b"other") is False


async def test_of_five_creators_with_faults_one_wins(world: World) -> None:
    proxy, store = world
    faults: list[Fault] = ["409", "lost answer", "412", "lost answer", "409"]
    proxy.choose = lambda asked: faults.pop() if asked.creation and faults else None
    results = await asyncio.gather(*(store.create("k", str(n).encode()) for n in range(5)))
    assert Counter(results) == {True: 1, False: 4}
    assert await store.get("k") == str(results.index(True)).encode()


@pytest.mark.parametrize("fault", ["lost answer", "lost request", "503"])
async def test_other_requests_say_that_they_failed_and_can_be_repeated(world: World, fault: Fault) -> None:
    proxy, store = world
    await store.create("a/k", b"0123456789")
    calls = (
        lambda: store.get("a/k", start=2, end=4),
        lambda: store.replace("a/k", b"0123456789"),
        lambda: store.folders(""),
        lambda: store.delete_all(["a/x", "a/y"]),
        lambda: store.delete("a/k"),
    )
    for call in calls:
        once(proxy, fault)
        with pytest.raises(StoreUnavailable):
            await call()
        await call()
    with pytest.raises(ObjectNotFound):
        await store.get("a/k")


async def test_a_server_that_is_slow_down_says_when_to_come_again(world: World) -> None:
    proxy, store = world
    once(proxy, "503")
    with pytest.raises(StoreUnavailable, match="slow down") as caught:
        await store.get("k")
    assert caught.value.retry_after == 5.0


@pytest.mark.parametrize("page", [1, 2, 5])
async def test_short_pages_hide_nothing_and_repeat_nothing(world: World, page: int) -> None:
    proxy, store = world
    for key in NAMES:
        await store.create(key, key.encode())
    proxy.page = page
    assert [info.key async for info in store.list("")] == sorted(NAMES)
    assert [info.key async for info in store.list("a/d")] == sorted(key for key in NAMES if key.startswith("a/d"))
    assert sorted([info.key async for info in store.scan("")]) == sorted(NAMES)
    assert await store.folders("") == ["a", "a-b", "b"]
    assert sum(asked.listing for asked in proxy.asked) > len(NAMES) / page


async def test_a_listing_that_fails_in_the_middle_fails_as_a_whole(world: World) -> None:
    proxy, store = world
    for key in NAMES:
        await store.create(key, b"")
    proxy.page = 5
    seen = 0

    def choose(asked: Asked) -> Fault | None:
        nonlocal seen
        seen += asked.listing
        return "503" if seen == 2 else None

    proxy.choose = choose
    with pytest.raises(StoreUnavailable):
        [info async for info in store.scan("")]


async def test_a_lost_answer_to_a_bulk_deletion_does_not_end_bulk_deletions(world: World) -> None:
    """Only a server that does not know the request is asked key by key from then on."""
    proxy, store = world
    for fault in ("lost answer", "lost request", "503"):
        for key in NAMES:
            await store.create(key, b"")
        once(proxy, fault)
        with pytest.raises(StoreUnavailable):
            await store.delete_all(NAMES)
        proxy.asked.clear()
        await store.delete_all(NAMES)
        assert [asked.method for asked in proxy.asked] == ["POST"]
    assert [info async for info in store.list("")] == []


async def test_a_server_whose_listing_lags_is_found_out_by_the_check(world: World) -> None:
    proxy, store = world
    once(proxy, "stale listing", times=9)
    with pytest.raises(StoreUnavailable, match="strongly consistent"):
        await store.check()
