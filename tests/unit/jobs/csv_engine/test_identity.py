"""Keys and names that must be the same after every restart."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, generation, idempotency_key, plan_hash
from pipeline.jobs.csv_engine.identity import idempotency_keys, key_prefix
from pipeline.jobs.processors import ProcessorSettings, adopt

JOB = UUID("cffde776-1d2a-4614-8023-a5148e411462")


def test_an_idempotency_key_is_the_same_for_ever() -> None:
    """A literal: a change of this value would make cards be loaded twice after an upgrade."""
    assert idempotency_key("acme", JOB, 17) == "ee442a38-96e6-8496-a3c0-000000000011"


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(), st.uuids(), st.integers(1, 16**12 - 1))
def test_an_idempotency_key_is_a_uuid_of_version_8(integration: str, job: UUID, record: int) -> None:
    """Card services often accept nothing else."""
    key = UUID(idempotency_key(integration, job, record))
    assert key.version == 8
    assert str(key) == idempotency_key(integration, job, record)


def test_idempotency_keys_differ_by_integration_job_and_record() -> None:
    """Nothing else changes a key."""
    keys = {
        idempotency_key("a", JOB, 1),
        idempotency_key("b", JOB, 1),
        idempotency_key("a", UUID(int=1), 1),
        idempotency_key("a", JOB, 2),
    }
    assert len(keys) == 4


def test_many_keys_at_once_are_the_same_keys() -> None:
    """The vectorised form and the plain one agree."""
    records = np.array([1, 9, 10, 255, 256, 20_000_000, 16**12 - 1])
    keys = idempotency_keys(key_prefix("acme", JOB), records).to_pylist()
    assert keys == [idempotency_key("acme", JOB, record) for record in records.tolist()]


def plan(settings: CsvSettings | None = None, limits: CsvLimits | None = None, version: str = "1", **more: Any) -> str:
    """Return a plan's hash."""

    class Mine:
        def __init__(self, option: int = 0) -> None:
            self.option = option
            self.version = version

        async def process(self, card: object, context: object) -> None: ...

    return plan_hash(
        settings or CsvSettings(), limits or CsvLimits(), adopt(Mine, ProcessorSettings(**({"name": "m"} | more)))
    )


@pytest.mark.parametrize(("size", "name"), [(7, "a259d8c263f359f7"), (None, "106f7e2d59c5215b")])
def test_a_generation_has_the_same_name_for_ever(size: int | None, name: str) -> None:
    """Literals: under another name the parts of a job in work would not be found after an upgrade."""
    assert generation('"abc"', size, "00" * 8) == name


def test_a_plan_is_the_same_for_ever() -> None:
    """16 hex digits, the same after a restart."""
    assert plan() == plan()
    assert len(plan()) == 16


@pytest.mark.parametrize(
    "changed",
    [
        plan(CsvSettings(delimiter=";")),
        plan(limits=CsvLimits(chunk_bytes=2048)),
        plan(limits=CsvLimits(chunk_records=7)),
        plan(version="2"),
        plan(name="n"),
        plan(options={"option": 1}),
    ],
)
def test_what_decides_the_result_changes_the_plan(changed: str) -> None:
    """Another processor, or another cutting, never meets old parts."""
    assert changed != plan()


@pytest.mark.parametrize("same", [plan(concurrency=3, retry={"max_tries": 2}), plan(limits=CsvLimits(max_records=7))])
def test_what_does_not_decide_the_result_keeps_the_plan(same: str) -> None:
    """A limit or a pause can be changed in mid-job."""
    assert same == plan()


def test_a_generation_is_the_file_and_the_plan() -> None:
    """The hash covers ETag, size and plan; an unknown size differs from every size."""
    names = {generation('"e"', 1, "p"), generation('"f"', 1, "p"), generation('"e"', 2, "p"), generation('"e"', 1, "q")}
    assert len(names | {generation('"e"', None, "p")}) == 5
    assert generation('"e"', 1, "p") == generation('"e"', 1, "p")
