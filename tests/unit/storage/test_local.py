"""The folder store: what a file system adds to the contract that all stores share (tests/contract)."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import aiofiles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import FatalError
from pipeline.storage import LocalStore, ObjectNotFound, StoreUnavailable
from pipeline.storage import local as module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "some" / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def failing(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch, *, when: Callable[..., bool] | None = None
) -> None:
    """Let a function of ``os`` fail, as a full disk would make it."""
    real = getattr(os, name)

    def fail(*args: object, **kwargs: object) -> object:
        if when is None or when(*args):
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, fail)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_aside(root: Path) -> list[Path]:
    return list((root / ".incoming").iterdir())


async def test_files_are_for_their_owner_alone(root: Path, store: LocalStore) -> None:
    await store.create("a/b/c", b"x")
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o600
    for folder in (root, root / "a", root / "a/b", root / ".incoming"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_nothing_is_left_aside(root: Path, store: LocalStore) -> None:
    await store.create("a", b"1")
    await store.create("a", b"2")
    assert left_aside(root) == []


async def test_names_and_contents_are_flushed(root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before its name, the name after it, and each new folder's name."""
    steps: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("file" if target.parent.name == ".incoming" else os.path.relpath(target, root))
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        steps.append("link")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    await store.create("a/b/c", b"x")
    assert steps == ["../..", "..", ".", "file", ".", "a", "link", "a/b"]
    steps.clear()
    await store.create("a/b/c", b"other")
    assert steps == ["file", "link", "a/b"]
    steps.clear()
    await store.delete("a/b/c")
    assert steps == ["a/b"]


@pytest.mark.parametrize(
    ("name", "number", "code", "words"),
    [
        ("fsync", errno.ENOSPC, "store_full", "disk is full"),
        ("fsync", errno.EDQUOT, "store_full", "quota"),
        ("fsync", errno.EIO, "store_unavailable", "check the disk"),
        ("open", errno.EACCES, "store_forbidden", "permission denied"),
        ("open", errno.EROFS, "store_forbidden", "read-only"),
        ("open", errno.EMFILE, "store_unavailable", "too many open files"),
        ("link", errno.ENOSPC, "store_full", "disk is full"),
    ],
)
async def test_what_the_disk_refuses_is_reported_with_what_to_do(
    root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, name: str, number: int, code: str, words: str
) -> None:
    await store.create("warm", b"")
    with monkeypatch.context() as patch:
        failing(name, number, patch)
        with pytest.raises(StoreUnavailable, match=words) as caught:
            await store.create("a", b"x")
    assert caught.value.code == code
    assert str(root) in caught.value.message
    assert left_aside(root) == []
    with pytest.raises(ObjectNotFound):
        await store.get("a")
    assert await store.create("a", b"x") is True


async def test_the_folders_above_need_not_be_readable(
    root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E.g. /srv with mode 0711: a user who may not list it cannot sync it."""
    above = {root.parent, *root.parent.parents}
    with monkeypatch.context() as patch:
        failing("open", errno.EACCES, patch, when=lambda path, *_: Path(path) in above)
        assert await store.create("a/b", b"x") is True
        await store.check()
    assert await store.get("a/b") == b"x"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
async def test_a_file_system_without_hard_links_must_not_be_used(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing("link", number, monkeypatch)
    with pytest.raises(FatalError, match=r"store_without_create.*hard links"):
        await store.create("a", b"x")


async def test_a_creation_that_was_linked_but_not_flushed_is_recognised_when_repeated(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create("a/warm", b"")
    with monkeypatch.context() as patch:
        failing("fsync", errno.EIO, patch, when=lambda fd: Path(f"/proc/self/fd/{fd}").readlink().name == "a")
        with pytest.raises(StoreUnavailable):
            await store.create("a/k", b"mine")
    assert await store.create("a/k", b"mine") is True


async def test_folders_go_with_their_last_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for key in ("a/b/c", "a/b/d/e", "a/f/g", "h/i"):
        await store.create(key, b"")
    await store.delete_all(["a/b/c", "a/b/d/e", "h/i"])
    assert await store.folders("") == ["a"]
    assert await store.folders("a/") == ["f"]


@pytest.mark.parametrize("call", ["get", "stream", "list", "folders", "delete", "check"])
async def test_each_call_translates_what_the_disk_says(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await store.create("a/b", b"x")
    failing("scandir", errno.EIO, monkeypatch)
    failing("fsync", errno.EIO, monkeypatch)

    def no_file(*_: object, **__: object) -> object:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(aiofiles, "open", no_file)
    if call == "get":
        monkeypatch.setattr(Path, "open", no_file)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("a/b"),
        "stream": lambda: anext(store.stream("a/b")),
        "list": lambda: anext(store.list("")),
        "folders": lambda: store.folders(""),
        "delete": lambda: store.delete("a/b"),
        "check": store.check,
    }
    with pytest.raises(StoreUnavailable):
        await calls[call]()  # type: ignore[misc]


async def test_a_stream_of_nothing_is_reported(store: LocalStore) -> None:
    with pytest.raises(ObjectNotFound):
        await anext(store.stream("no/where"))
    await store.create("is", b"12345")
    assert [piece async for piece in store.stream("is", chunk_bytes=2)] == [b"12", b"34", b"5"]


async def test_a_reader_cancelled_while_its_file_opens_closes_the_file(store: LocalStore, root: Path) -> None:
    await store.create("other", b"")
    pipe = root / "pipe"  # opening it for reading waits for a writer
    os.mkfifo(pipe)
    reading = asyncio.ensure_future(anext(store.stream("pipe")))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.sleep(0.05)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
    finally:
        os.close(writer)


async def test_readers_cancelled_at_any_moment_close_their_files(store: LocalStore) -> None:
    await store.create("a", b"12345")

    async def read() -> None:
        async with aclosing(store.stream("a", chunk_bytes=2)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(len, piece)

    for turns in range(200):
        readers = [asyncio.create_task(read()) for _ in range(4)]
        for _ in range(turns % 20):
            await asyncio.sleep(turns % 3 / 10_000)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    gc.collect()  # an unclosed file warns, and warnings are errors


async def test_a_folder_that_is_no_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        await LocalStore(tmp_path / "file").create("a", b"")
    with pytest.raises(StoreUnavailable):
        await LocalStore(tmp_path / "file").check()


async def test_a_key_below_an_object_is_refused_and_harms_nothing(store: LocalStore) -> None:
    await store.create("a", b"1")
    with pytest.raises(StoreUnavailable, match="not a directory"):
        await store.create("a/b", b"2")
    with pytest.raises(ObjectNotFound):
        await store.get("a/b")
    await store.delete("a/b")
    assert [info.key async for info in store.list("a/")] == []
    assert await store.get("a") == b"1"


async def test_empty_folders_go_with_their_last_object(root: Path, store: LocalStore) -> None:
    await store.create("open/1/acme/x", b"")
    await store.create("open/2/acme/y", b"")
    await store.delete("open/1/acme/x")
    assert names(root / "open") == ["2"]
    await store.delete("open/2/acme/y")
    assert names(root) == [".incoming"]


async def test_folders_that_vanish_while_a_file_is_put_into_them_are_made_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link
    vanished: list[Path] = []

    def link(source: Path, target: Path) -> None:
        if not vanished:
            vanished.append(target)
            target.parent.rmdir()
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert await store.create("a/b", b"x") is True
    assert vanished
    assert await store.get("a/b") == b"x"


async def test_folders_that_vanish_for_ever_are_reported(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    failing("link", errno.ENOENT, monkeypatch)
    with pytest.raises(StoreUnavailable, match="Which other program works on it"):
        await store.create("a/b", b"x")


@pytest.mark.parametrize("taken", [False, True])
async def test_an_object_deleted_while_it_is_created(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """Its folder is gone when it is to be flushed. Another's object that is gone too has won against nobody."""
    real = os.link
    if taken:
        await store.create("a/b", b"other's")

    def link(source: Path, target: Path) -> None:
        try:
            real(source, target)
        finally:
            target.unlink()
            target.parent.rmdir()

    monkeypatch.setattr(os, "link", link)
    assert await store.create("a/b", b"mine") is True


async def test_an_object_that_comes_and_goes_for_ever_is_unknown(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each link finds the name taken, each look at it finds nothing."""
    failing("link", errno.EEXIST, monkeypatch)
    with pytest.raises(StoreUnavailable, match=r"Could not create 'a/b'.*there is no such object"):
        await store.create("a/b", b"mine")


async def test_old_leftovers_of_killed_processes_are_cleaned_and_young_ones_stay(root: Path, store: LocalStore) -> None:
    await store.create("a", b"")
    old, young = root / ".incoming/1-old", root / ".incoming/2-young"
    old.write_bytes(b"half an obj")
    young.write_bytes(b"half an obj")
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    await store.check()
    assert left_aside(root) == [young]
    assert [info.key async for info in store.list("")] == ["a"]
    assert await store.folders("") == []


async def test_a_worker_that_only_writes_cleans_up_too(root: Path, store: LocalStore) -> None:
    """The leftovers of a killed process may hold card data, so they must not stay until the next start of a worker."""
    await store.create("a", b"1")
    old = root / ".incoming" / "killed"
    old.write_bytes(b"9999990000000006,ok\n")
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    await store.create("b", b"2")
    assert old.exists()
    store._cleaned -= 601
    await store.create("c", b"3")
    assert not old.exists()


async def test_files_that_vanish_during_a_listing_are_left_out(root: Path, store: LocalStore) -> None:
    for name in "abc":
        await store.create(name, b"")
    listing = store._read_folder("")
    paths = store._first_paths("", "")
    (root / "b").unlink()
    assert [entry.path for entry in store._entries(paths)] == ["a", "c"]
    await listing.aclose()  # type: ignore[attr-defined]


async def test_a_folder_of_more_names_than_are_held_is_listed_in_order(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NAMES_AT_ONCE", 3)
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", 2)
    keys = ["a", "a-", "b/1", "b/2", "b-", "c/x/y", "d", "e", "f", "g"]
    for key in keys:
        await store.create(key, b"")
    assert [info.key async for info in store.list("")] == sorted(keys)


@given(st.sets(st.lists(st.sampled_from(["a", "b", "a-", "a.b", "a0", "~"]), min_size=1, max_size=3).map("/".join)))
@settings(max_examples=60, deadline=None)
def test_folders_are_walked_in_the_order_of_whole_keys(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str]
) -> None:
    """The law: a listing is what sorting all keys would give."""
    alone = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    store = LocalStore(tmp_path_factory.mktemp("walk"))

    async def listed() -> list[str]:
        await asyncio.gather(*(store.create(key, b"") for key in alone))
        return [info.key async for info in store.list("")]

    assert asyncio.run(listed()) == sorted(alone)


RACER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from pipeline.storage import LocalStore

    async def race(root, name, step):
        store = LocalStore(Path(root))
        print("ready", flush=True)
        sys.stdin.readline()
        order = range(200)[:: int(step)]
        print(*[n for n in order if await store.create(f"race/{n:04d}/decided", f"{name} {n}".encode())])

    asyncio.run(race(*sys.argv[1:]))
    """
)


def test_of_two_processes_exactly_one_wins_each_object(root: Path) -> None:
    """They come from both ends, so both win some, and meet."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(root), name, step],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, step in (("left", "1"), ("right", "-1"))
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    left, right = [{int(number) for number in racer.communicate(timeout=60)[0].split()} for racer in racers]
    assert left | right == set(range(200))
    assert not left & right
    assert left
    assert right
    for number in range(200):
        owner = "left" if number in left else "right"
        assert (root / f"race/{number:04d}/decided").read_text() == f"{owner} {number}"


async def test_a_process_killed_while_writing_leaves_no_object(root: Path) -> None:
    """SIGKILL between flush and link: a working file stays aside, no key is seen."""
    code = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        from pathlib import Path
        from pipeline.storage import LocalStore
        os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(LocalStore(Path(sys.argv[1])).create("a/b", b"x" * 100_000))
        """
    )
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(root)], check=False, timeout=60)
    assert done.returncode == -9
    store = LocalStore(root)
    assert len(left_aside(root)) == 1
    assert [info.key async for info in store.list("")] == []
    assert await store.create("a/b", b"y") is True


def test_the_folder_is_named_in_the_repr(root: Path, store: LocalStore) -> None:
    assert str(root) in repr(store)
