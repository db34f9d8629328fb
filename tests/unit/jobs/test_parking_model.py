"""Parking under crashes at any write, in any order: no job is lost, none is done twice, and copies do not multiply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from support.job_world import PART_CIPHER, World

from pipeline.contracts import OutgoingRecord, Record, RecordPosition, Topic, is_for
from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.parking import Parking
from pipeline.retry import RetryPolicy
from pipeline.storage.testing import MemoryStore

MOST_COPIES = 2
"""Copies of one record that may be under way at the same time."""


class Death(BaseException):
    """The process is killed."""


class Fate:
    """Kills a process before or after one of its next effects."""

    def __init__(self) -> None:
        self.left: int | None = None

    def pass_point(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Death


class MortalStore(MemoryStore):
    """A store whose caller may die before or after a write."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate

    async def create(self, key: str, data: bytes) -> bool:
        self.fate.pass_point()
        created = await super().create(key, data)
        self.fate.pass_point()
        return created

    async def delete(self, key: str) -> None:
        self.fate.pass_point()
        await super().delete(key)
        self.fate.pass_point()

    async def delete_all(self, keys: Sequence[str]) -> None:
        self.fate.pass_point()
        await super().delete_all(keys)
        self.fate.pass_point()


@dataclass(frozen=True)
class Step:
    """What happens next.

    Attributes:
        action: PROCESS handles its next record, all watches look, one after another, or an operator resumes the jobs.
        works: Whether the input can be downloaded.
        dies_at: Which effect the process does not survive; None: it survives.
        commits: Whether the offset is committed. Without a death, a lost commit has the same effect.
        seconds: How much time passes before.
    """

    action: Literal["process", "look", "resume"]
    works: bool
    dies_at: int | None
    commits: bool
    seconds: int


STEPS = st.lists(
    st.builds(
        Step,
        action=st.sampled_from(["process", "process", "look", "look", "resume"]),
        works=st.sampled_from([False, False, False, True]),
        dies_at=st.one_of(st.none(), st.integers(0, 12)),
        commits=st.booleans(),
        seconds=st.sampled_from([0, 1, 40, 400]),
    ),
    max_size=25,
)


class Model:
    """One job, PROCESS and the watches."""

    def __init__(self) -> None:
        self.world = World()
        self.fate = Fate()
        self.world.memory = MortalStore(self.fate)
        self.world.jobs = JobStore(self.world.memory, PART_CIPHER)
        self.world.parking = Parking(self.world.jobs, self.world.clock, RetryPolicy(30, 300, jitter=lambda: 1.0))
        self.world.restart()
        self.log: list[Record] = [self.world.announce(expires_at="2026-01-30T12:00:00Z")]
        self.committed = 0
        self.most_copies = 0
        publish = self.world.bus.publish

        async def publish_or_die(record: OutgoingRecord) -> RecordPosition:
            self.fate.pass_point()
            position = await publish(record)
            if record.topic == Topic.BATCH_REQUESTED:
                copy = replace(self.log[0], offset=len(self.log) + 1, headers=record.headers, attempt=1)
                assert (record.key, record.value) == (copy.key, copy.value)
                assert is_for(copy, "process")
                self.log.append(copy)
            self.fate.pass_point()
            return position

        self.world.bus.publish = publish_or_die  # type: ignore[method-assign]

    async def take(self, step: Step) -> None:
        self.world.clock.forward(seconds=step.seconds)
        self.fate.left = step.dies_at
        try:
            if step.action == "process":
                await self._process(step)
            elif step.action == "look":
                await self.world.due.poll()
                await self.world.due.poll()
            else:
                await self.world.parking.resume("acme")
        except Death:
            self.world.restart()
        self.fate.left = None
        self.check()

    async def _process(self, step: Step) -> None:
        if self.committed == len(self.log):
            return
        self.world.objects.fail_open = [] if step.works else [TransientError("slow_down", "503")] * 3
        await self.world.handle_until_over("process", self.log[self.committed])
        if step.commits:
            self.committed += 1

    @property
    def waiting(self) -> list[str]:
        return [key for key in self.world.memory.objects if key.startswith("due/")]

    @property
    def done(self) -> bool:
        return any(key.endswith("/processed.json") for key in self.world.memory.objects)

    def check(self) -> None:
        """Check that the job is not lost."""
        assert self.done or self.committed < len(self.log) or self.waiting


@settings(max_examples=60)
@given(STEPS)
async def test_a_job_is_never_lost_and_ends_once(steps: Sequence[Step]) -> None:
    model = Model()
    for step in steps:
        await model.take(step)
    while model.waiting or model.committed < len(model.log):
        await model.take(Step("process", works=True, dies_at=None, commits=True, seconds=300))
        await model.take(Step("look", works=True, dies_at=None, commits=True, seconds=0))
    assert model.done
    await model.world.upload.handle(model.world.records(Topic.BATCH_PROCESSED)[-1], model.world.lease)
    assert len(model.world.objects.put) == 1


@settings(max_examples=20)
@given(STEPS)
async def test_copies_do_not_multiply_while_the_cause_lasts(steps: Sequence[Step]) -> None:
    """Each death may add a copy; copies of one record become one again when they wait."""
    model = Model()
    for step in steps:
        await model.take(replace(step, works=False))
    while model.committed < len(model.log):
        await model.take(Step("process", works=False, dies_at=None, commits=True, seconds=0))
    for _ in range(8):
        before = len(model.log)
        await model.take(Step("look", works=False, dies_at=None, commits=True, seconds=300))
        assert len(model.log) - before <= MOST_COPIES
        while model.committed < len(model.log):
            await model.take(Step("process", works=False, dies_at=None, commits=True, seconds=0))
        assert 1 <= len(model.waiting) <= MOST_COPIES
    assert len(model.waiting) == 1
