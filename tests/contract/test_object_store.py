"""What every ObjectStore does: one suite, run in memory, on a folder, and on a real S3-compatible server."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr
from support.audit_log import Log, entries, entry
from support.seaweedfs import SeaweedFS

from pipeline.audit import read_heads
from pipeline.audit.verify import verify
from pipeline.storage import LocalSettings, ObjectNotFound, ObjectStore, S3Settings, StoreUnavailable, open_store
from pipeline.storage.testing import MemoryStore

RANDOM = random.Random(7)  # noqa: S311 - test data, the same each time
KINDS = ("memory", "local", "seaweedfs", "versitygw")


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    opened = _open(request, tmp_path)
    yield opened
    await opened.close()


def _open(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return open_store(LocalSettings(path=tmp_path / "store"))
    server: SeaweedFS = request.getfixturevalue(request.param)
    return open_store(
        S3Settings(
            kind="s3",
            bucket=server.bucket,
            prefix=f"contract/{uuid.uuid4().hex}",
            endpoint=server.endpoint,
            region=server.region,
            access_key_id=SecretStr(server.access_key),
            secret_access_key=SecretStr(server.secret_key),
            allow_http=True,
        )
    )


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix)]


class TestCreate:
    async def test_the_first_creation_wins_and_stays(self, store: ObjectStore) -> None:
        assert await store.create("a/b.json", b"one") is True
        assert await store.create("a/b.json", b"two") is False
        assert await store.get("a/b.json") == b"one"

    async def test_a_repeat_of_the_same_bytes_counts_as_own(self, store: ObjectStore) -> None:
        """So a creation whose answer was lost can be repeated."""
        assert await store.create("a/b", b"mine") is True
        assert await store.create("a/b", b"mine") is True

    async def test_of_five_creators_one_wins(self, store: ObjectStore) -> None:
        results = await asyncio.gather(*(store.create("deep/er/key", str(n).encode()) for n in range(5)))
        assert results.count(True) == 1
        assert await store.get("deep/er/key") == str(results.index(True)).encode()

    async def test_no_object_of_another_is_claimed_where_none_can_be(self, store: ObjectStore) -> None:
        """All creators write the same bytes, while others delete them: the answer is True, or unknown."""
        unknown = 0

        async def create() -> None:
            nonlocal unknown
            for _ in range(40):
                try:
                    assert await store.create("open/minute/marker", b"") is True
                except StoreUnavailable:
                    unknown += 1

        async def delete() -> None:
            for _ in range(40):
                await store.delete("open/minute/marker")

        await asyncio.gather(create(), delete(), create(), delete())
        assert unknown < 40
        assert await store.create("open/minute/marker", b"") is True
        assert await store.create("open/minute/marker", b"other") is False

    async def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        assert await store.create("empty", b"") is True
        assert await store.get("empty") == b""
        assert await store.get("empty", start=0, end=10) == b""
        assert [piece async for piece in store.stream("empty")] == []
        assert [(info.key, info.size) async for info in store.list("")] == [("empty", 0)]

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "ä", "a\\b", "x" * 901]
    )
    async def test_a_bad_key_is_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(ValueError, match="is not a store key"):
            await store.create(key, b"")
        with pytest.raises(ValueError, match="is not a store key"):
            await store.get(key)
        with pytest.raises(ValueError, match="is not a store key"):
            await store.delete(key)
        with pytest.raises(ValueError, match="is not a store key"):
            await anext(store.stream(key))


class TestGet:
    @pytest.mark.parametrize(
        ("start", "end"), [(0, None), (0, 4), (3, 6), (3, None), (3, 100), (10, None), (10, 12), (12, None), (4, 4)]
    )
    async def test_a_range_is_a_slice(self, store: ObjectStore, start: int, end: int | None) -> None:
        await store.create("k", b"0123456789")
        assert await store.get("k", start=start, end=end) == b"0123456789"[start:end]

    @pytest.mark.parametrize(("start", "end"), [(0, None), (0, 1), (5, None), (5, 5)])
    async def test_a_missing_object_is_named(self, store: ObjectStore, start: int, end: int | None) -> None:
        await store.create("there/is", b"x")
        with pytest.raises(ObjectNotFound, match="'there/isnt'"):
            await store.get("there/isnt", start=start, end=end)
        with pytest.raises(ObjectNotFound):
            await store.get("there")


class TestStream:
    @pytest.mark.parametrize("size", [1, 999, 1000, 1001, 123_456])
    async def test_pieces_add_up_and_are_bounded(self, store: ObjectStore, size: int) -> None:
        data = RANDOM.randbytes(size)
        await store.create("big", data)
        pieces = [piece async for piece in store.stream("big", chunk_bytes=1000)]
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= 1000
        assert all(isinstance(piece, bytes) for piece in pieces)

    async def test_a_missing_object_is_named(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            await anext(store.stream("nope"))


NAMES = [
    "a+b", "a-b/c", "a.b", "a/b", "a/c.d", "a/d-e", "a/d/e", "a/d0", "a0", "a=,@:~_b/c", "ab", "b/1", "b/10", "b/2", "z"
]  # fmt: skip


class TestList:
    @pytest.fixture(autouse=True)
    async def _fill(self, store: ObjectStore) -> None:
        for key in RANDOM.sample(NAMES, len(NAMES)):
            await store.create(key, key.encode())

    async def test_keys_come_in_code_point_order_with_sizes(self, store: ObjectStore) -> None:
        """Which is not the order of folders: ``a-b/c`` comes before ``a/b``."""
        listed = [(info.key, info.size) async for info in store.list("")]
        assert listed == [(key, len(key)) for key in sorted(NAMES)]

    async def test_it_says_when_an_object_was_written(self, store: ObjectStore) -> None:
        """Servers say the second only, and may have another clock."""
        asked = datetime.now(UTC)
        listed = [info.modified async for info in store.list("a/")]
        assert listed
        assert all(at and abs((at - asked).total_seconds()) < 60 for at in listed)

    @pytest.mark.parametrize("prefix", ["a", "a/", "a/d", "a/d/", "a-", "b/1", "b/10", "c", "c/d", "a/b", "a/b/"])
    async def test_a_prefix_may_be_cut_anywhere(self, store: ObjectStore, prefix: str) -> None:
        assert await keys(store, prefix) == sorted(key for key in NAMES if key.startswith(prefix))

    @pytest.mark.parametrize(
        ("prefix", "names"),
        [("", ["a", "a-b", "a=,@:~_b", "b"]), ("a/", ["d"]), ("a/d/", []), ("b/", []), ("no/", [])],
    )
    async def test_folders_are_named_once(self, store: ObjectStore, prefix: str, names: list[str]) -> None:
        assert await store.folders(prefix) == names

    async def test_a_listing_may_be_left_early(self, store: ObjectStore) -> None:
        async for info in store.list("a"):
            assert info.key == "a+b"
            break

    async def test_a_bad_prefix_is_refused(self, store: ObjectStore) -> None:
        with pytest.raises(ValueError, match="not a prefix"):
            await keys(store, "../")


class TestManyObjects:
    async def test_more_than_a_page_of_files_and_folders_stays_in_order(self, store: ObjectStore) -> None:
        """1,000 is a page of S3; folders among them make some servers change the order."""
        names = [f"n/{n:05d}" for n in range(1040)] + [f"n/00500{end}" for end in ("-x", "x/y", ".z")] + ["n/0099/x"]
        for start in range(0, len(names), 100):
            await asyncio.gather(*(store.create(key, b"") for key in names[start : start + 100]))
        assert await keys(store, "n/") == sorted(names)
        assert await keys(store, "n/005") == sorted(key for key in names if key.startswith("n/005"))
        assert await keys(store, "n") == sorted(names)

    async def test_pages_of_files_alone_stay_in_order(self, store: ObjectStore) -> None:
        names = [f"n/{n:05d}" for n in range(2100)]
        for start in range(0, len(names), 100):
            await asyncio.gather(*(store.create(key, b"") for key in names[start : start + 100]))
        assert await keys(store, "n/") == names


class TestScan:
    @pytest.mark.parametrize("prefix", ["", "a/", "a/d/", "b/", "c/"])
    async def test_it_finds_what_a_listing_finds(self, store: ObjectStore, prefix: str) -> None:
        for key in RANDOM.sample(NAMES, len(NAMES)):
            await store.create(key, key.encode())
        assert sorted([info async for info in store.scan(prefix)], key=lambda info: info.key) == [
            info async for info in store.list(prefix)
        ]

    async def test_folders_with_names_of_one_length_come_in_order_of_their_names(self, store: ObjectStore) -> None:
        """So a reader of markers that are filed under minutes may stop at the first later minute."""
        names = [f"m/{n % 90:012d}/{'a-b' if n % 2 else 'a'}/{n}" for n in range(1100)]
        for start in range(0, len(names), 100):
            await asyncio.gather(*(store.create(key, b"") for key in names[start : start + 100]))
        found = [info.key async for info in store.scan("m/")]
        assert sorted(found) == sorted(names)
        assert [key.split("/")[1] for key in found] == sorted(key.split("/")[1] for key in names)
        for begin in (0, 700, 1050):
            assert [info.key async for info in store.scan("m/", after=found[begin])] == found[begin + 1 :]

    async def test_only_a_folder_can_be_scanned(self, store: ObjectStore) -> None:
        with pytest.raises(ValueError, match="does not name a folder"):
            await anext(store.scan("a/b"))


class TestDelete:
    async def test_a_deleted_object_is_gone_and_may_come_again(self, store: ObjectStore) -> None:
        await store.create("a/b/c", b"1")
        await store.create("a/d", b"2")
        await store.delete("a/b/c")
        assert await keys(store) == ["a/d"]
        with pytest.raises(ObjectNotFound):
            await store.get("a/b/c")
        assert await store.create("a/b/c", b"3") is True

    async def test_deleting_what_is_missing_is_no_error(self, store: ObjectStore) -> None:
        await store.delete("not/there")
        await store.create("is", b"")
        await store.delete("is")
        await store.delete("is")

    async def test_many_are_deleted_by_one_call(self, store: ObjectStore) -> None:
        for key in ("a/b/c", "a/b/d", "a/e", "f"):
            await store.create(key, b"1")
        await store.delete_all(["a/b/c", "a/b/d", "f", "not/there"])
        assert await keys(store) == ["a/e"]
        await store.delete_all([])
        with pytest.raises(ValueError, match="not a store key"):
            await store.delete_all(["a/e", "../e"])
        assert await keys(store) == ["a/e"]


class TestReplace:
    async def test_other_bytes_replace_the_old_ones_at_once(self, store: ObjectStore) -> None:
        await store.create("a/b.json", b"a secret and the rest")
        await store.replace("a/b.json", b"the rest")
        assert await store.get("a/b.json") == b"the rest"
        assert [(info.key, info.size) async for info in store.list("")] == [("a/b.json", 8)]
        assert await store.create("a/b.json", b"new") is False

    async def test_a_repeat_changes_nothing_and_a_missing_object_is_no_error(self, store: ObjectStore) -> None:
        for _ in range(2):
            await store.replace("a/b/c", b"the rest")
        assert await store.get("a/b/c") == b"the rest"

    async def test_a_reader_sees_one_of_the_two(self, store: ObjectStore) -> None:
        old, new = b"o" * 100_000, b"n" * 90_000
        await store.create("k", old)

        async def replace() -> None:
            for _ in range(10):
                await store.replace("k", new)

        async def read() -> set[bytes]:
            return {await store.get("k") for _ in range(10)}

        _, seen = await asyncio.gather(replace(), read())
        assert seen <= {old, new}

    async def test_a_bad_key_is_refused(self, store: ObjectStore) -> None:
        with pytest.raises(ValueError, match="is not a store key"):
            await store.replace("../a", b"")


async def test_check_proves_it_and_leaves_nothing(store: ObjectStore) -> None:
    await store.check()
    assert await keys(store) == []


async def test_the_audit_log_works_on_it(store: ObjectStore) -> None:
    """Chain, restart, a new epoch, heads and verifier on each storage."""
    log = Log(store=cast("MemoryStore", store))  # another one's tests look into it
    await log.fill(entries(1, 2), entries(3), partition=11)
    await log.fill(entries(2, 3, 4), [entry(0, "recreated")], partition=11)
    await log.fill(entries(1))
    heads = await read_heads(store)
    assert [(head.partition, head.epoch, head.segment, head.events) for head in heads] == [(0, 0, 0, 1), (11, 1, 4, 5)]
    report = await verify(store, heads=heads)
    assert (report.ok, report.segments, report.events, report.heads) == (True, 6, 6, 2)
    await store.delete("audit/audit.events/00011/00000/000000000001.jsonl")
    report = await verify(store, heads=heads)
    assert (report.partition, report.segment, report.kind) == (11, 1, "missing")
