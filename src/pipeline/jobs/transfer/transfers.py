"""One integration's downloader and uploader, with their sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pipeline.jobs.transfer.download import HttpDownloader
from pipeline.jobs.transfer.protocols import Downloader, Uploader
from pipeline.jobs.transfer.settings import TransferParameters
from pipeline.jobs.transfer.upload import HttpUploader
from pipeline.observability import Metrics
from pipeline.outbound import Circuit, CircuitPurpose, Circuits, HostRules, NetworkSettings, open_session, session_tls


@dataclass(frozen=True, slots=True)
class Transfers:
    """The downloader and the uploader of one integration."""

    downloader: Downloader
    uploader: Uploader


@asynccontextmanager
async def open_transfers(
    settings: TransferParameters,
    *,
    rules: HostRules,
    network: NetworkSettings,
    clock: Callable[[], datetime],
    metrics: Metrics | None = None,
    circuit_of: Callable[[CircuitPurpose], Circuit] | None = None,
) -> AsyncIterator[Transfers]:
    """Open the sessions of one integration's file transfers; the end of the block closes them.

    Args:
        settings: Timeouts, minimum rate, tries.
        rules: Hosts that its file URLs may name; http and private addresses.
        network: CA bundle and proxy.
        clock: UTC, aware.
        metrics: The process's metrics.
        circuit_of: Returns the circuit breaker of the integration for a purpose; by default a new one for this block.

    Raises:
        FatalError: The CA bundle cannot be read.
    """
    _keep_freed_memory(settings.read_ahead_bytes)
    # the client pauses a connection when twice its buffer waits to be read
    circuit_of = circuit_of or partial(Circuits(metrics).of, "")
    ahead = settings.read_ahead_bytes // 2
    tls = session_tls(network)  # one for both sessions
    async with (
        open_session(rules, network, "input", read_buffer_bytes=ahead, tls=tls) as source,
        open_session(rules, network, "result", tls=tls) as target,
    ):
        yield Transfers(
            HttpDownloader(source, settings, clock=clock, metrics=metrics, circuit=circuit_of("input")),
            HttpUploader(target, settings, clock=clock, metrics=metrics, circuit=circuit_of("result")),
        )


def _keep_freed_memory(size: int) -> None:
    """Make the C library keep so many freed bytes for the next pieces, instead of giving them back to the system.

    A download frees its whole read-ahead again and again, and getting the memory back takes longer than reading. glibc
    keeps about twice as much as the largest piece that was freed so far.
    """
    bytes(size)  # it is never written to, so it takes up no memory
