from __future__ import annotations

import asyncio

import pytest

from pipeline.errors import LeaseLost
from pipeline.kafka.partition import PartitionLease


async def test_a_held_lease_allows_effects() -> None:
    await PartitionLease(lambda: True).ensure()


async def test_limbo_waits_until_the_partition_comes_back() -> None:
    lease = PartitionLease(lambda: True)
    lease.suspend()
    waiting = asyncio.create_task(lease.ensure())
    await asyncio.sleep(0)
    assert not waiting.done()
    lease.hold()
    await waiting


async def test_limbo_ends_in_loss() -> None:
    lease = PartitionLease(lambda: True)
    lease.suspend()
    waiting = asyncio.create_task(lease.ensure())
    await asyncio.sleep(0)
    lease.lose()
    with pytest.raises(LeaseLost):
        await waiting


async def test_a_stale_heartbeat_loses_the_lease_for_good() -> None:
    """A heartbeat that succeeds later says nothing about the time in between."""
    fresh = False
    lease = PartitionLease(lambda: fresh)
    with pytest.raises(LeaseLost):
        await lease.ensure()
    fresh = True
    assert lease.lost
    lease.hold()
    lease.suspend()
    with pytest.raises(LeaseLost):
        await lease.ensure()


async def test_a_rebalance_right_behind_another_lets_no_effect_through() -> None:
    lease = PartitionLease(lambda: True)
    lease.suspend()
    waiting = asyncio.ensure_future(lease.ensure())
    await asyncio.sleep(0)
    lease.hold()
    lease.suspend()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    lease.hold()
    await waiting
