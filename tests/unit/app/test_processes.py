"""How the first process of a container notes that its children ended."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import psutil
from support.members import until

from pipeline.app.processes import Process, reap_all


def _child(code: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])


async def test_a_process_that_ends_while_others_are_reaped_keeps_its_exit_code() -> None:
    ours, theirs = socket.socketpair()
    popen, left_behind = _child(3), _child(4)
    process = Process(popen, ours)
    await until(
        lambda: all(psutil.Process(one.pid).status() == psutil.STATUS_ZOMBIE for one in (popen, left_behind)), 20
    )
    async with asyncio.timeout(5):
        reap_all({process.pid: process})
        assert await process.ended == 3
    assert not psutil.pid_exists(left_behind.pid)
    assert left_behind.wait() == 0  # nobody knows its code any more
    reap_all({})
    ours.close()
    theirs.close()
