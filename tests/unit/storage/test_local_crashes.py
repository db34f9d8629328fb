"""The local store when the machine dies: what it said is done stays, whole; nothing half-written is ever read.

What it does to files is recorded. The log is cut at each point, and all is tried that POSIX allows to be left then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from support.file_log import FileLog

from pipeline.errors import PipelineError
from pipeline.storage import LocalStore
from pipeline.storage import local as module

BIG = bytes(range(256)) * 4


class Died(BaseException):
    """A process is killed."""


class Plan:
    """What a test did to the store, and what must be there at each point of the log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = FileLog(folder)
        self.store = LocalStore(folder / "data" / "store")
        self._monkeypatch = monkeypatch
        self._states: dict[str, list[tuple[int, int, bytes | None]]] = {}

    async def do(
        self, call: Callable[[], Awaitable[object]], wanted: Mapping[str, bytes | None], since: int | None = None
    ) -> None:
        """Do something; say what objects hold when it has returned, and since which operation they may hold it."""
        begun = len(self.log.operations) if since is None else since
        with self.log.recording(self._monkeypatch):
            await call()
        for key, data in wanted.items():
            self._states.setdefault(key, []).append((begun, len(self.log.operations), data))

    def check(self) -> int:
        """Cut the log at each point, and check all that may be left; return how many states that were."""
        states = 0
        for cut in range(len(self.log.operations) + 1):
            for files in self.log.crashes(cut, seed=cut):
                states += 1
                self._check(cut, files)
        return states

    def _check(self, cut: int, files: Mapping[str, bytes]) -> None:
        prefix = "data/store/"
        objects = {path.removeprefix(prefix): data for path, data in files.items() if "/.incoming/" not in path}
        for key, had in self._states.items():
            sure: list[bytes | None] = [None]
            for begun, ended, data in had:
                if ended <= cut:
                    sure = [data]
                elif begun < cut:
                    sure.append(data)
            assert objects.pop(key, None) in sure, (key, cut, self.log.operations[max(0, cut - 8) : cut])
        assert objects == {}, cut


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    return Plan(tmp_path, monkeypatch)


async def test_what_was_created_replaced_and_deleted_is_durable(plan: Plan) -> None:
    store = plan.store
    await plan.do(lambda: store.create("jobs/a/1.json", BIG), {"jobs/a/1.json": BIG})
    await plan.do(lambda: store.create("jobs/a/2.json", b"two"), {"jobs/a/2.json": b"two"})
    await plan.do(lambda: store.create("jobs/b", b""), {"jobs/b": b""})
    await plan.do(lambda: store.replace("jobs/a/1.json", b"less"), {"jobs/a/1.json": b"less"})
    await plan.do(lambda: store.create("jobs/a/2.json", b"other"), {"jobs/a/2.json": b"two"})
    await plan.do(lambda: store.delete("jobs/a/2.json"), {"jobs/a/2.json": None})
    await plan.do(lambda: store.delete_all(["jobs/a/1.json", "jobs/b"]), {"jobs/a/1.json": None, "jobs/b": None})
    await plan.do(lambda: store.create("jobs/a/3.json", b"again"), {"jobs/a/3.json": b"again"})
    assert plan.check() > len(plan.log.operations)


async def test_the_loser_of_a_creation_continues_from_an_object_that_is_durable(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The winner is killed right after its link."""
    winner, loser = LocalStore(plan.store._root), plan.store
    await plan.do(lambda: winner.create("a/b/x", b"x"), {"a/b/x": b"x"})
    link = winner._link

    def linked_and_killed(aside: Path, target: Path) -> bool:
        link(aside, target)
        raise Died

    monkeypatch.setattr(winner, "_link", linked_and_killed)

    async def die() -> None:
        with pytest.raises(Died):
            await winner.create("a/b/c", b"first")

    begun = len(plan.log.operations)
    await plan.do(die, {})
    await plan.do(lambda: loser.create("a/b/c", b"second"), {"a/b/c": b"first"}, since=begun)
    plan.check()


@pytest.mark.parametrize("folder", ["a", "a/b"])
async def test_a_folder_that_another_worker_has_just_made_is_made_durable(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """It was killed, or is still at it, before it flushed the folder above."""
    other, store = LocalStore(plan.store._root), plan.store
    await plan.do(lambda: store.create("z", b"z"), {"z": b"z"})
    sync = module._sync_folder

    def killed(path: Path) -> None:
        if path == (other._root / folder).parent:
            raise Died
        sync(path)

    async def die() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, "_sync_folder", killed)
            with pytest.raises(Died):
                await other.create("a/b/theirs", b"theirs")

    await plan.do(die, {})
    await plan.do(lambda: store.create("a/b/mine", b"mine"), {"a/b/mine": b"mine"})
    plan.check()


async def test_a_deletion_is_durable_although_another_worker_removes_the_folder(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one flushed the folder before this deletion, and removed it after."""
    store = plan.store
    await plan.do(lambda: store.create("a/b/mine", b"mine"), {"a/b/mine": b"mine"})
    settle = store._settle_deletions

    def after_the_other(folder: Path) -> None:
        folder.rmdir()
        settle(folder)

    async def delete() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(store, "_settle_deletions", after_the_other)
            await store.delete("a/b/mine")

    await plan.do(delete, {"a/b/mine": None})
    plan.check()


async def test_a_disk_that_fails_to_flush_is_no_success(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "_sync_folder", failing)
    with pytest.raises(PipelineError, match="check the disk"):
        await plan.store.create("a", b"a")
