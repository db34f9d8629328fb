from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from pipeline.errors import PermanentError, TransientError
from pipeline.observability import Metrics
from pipeline.outbound import CircuitOpen, Circuits, HostUnavailable

HOST = "files.example"
SILENT = HostUnavailable("source_timeout", "Host of input_file_url: the other side does not answer in time.")


class Bench:
    """One circuit with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.jitter = 0.5
        self.metrics = Metrics()
        self.circuits = Circuits(self.metrics, clock=lambda: self.now, jitter=lambda: self.jitter)
        self.circuit = self.circuits.of("acme", "input")

    @property
    def open(self) -> float | None:
        return self.metrics.registry.get_sample_value(
            "pipeline_circuit_open", {"integration": "acme", "purpose": "input"}
        )

    def fail(self, times: int = 1, host: str = HOST) -> None:
        for _ in range(times):
            with pytest.raises(HostUnavailable), self.circuit.call(host):
                raise SILENT

    def succeed(self) -> None:
        with self.circuit.call(HOST):
            pass

    def refused(self) -> CircuitOpen:
        with pytest.raises(CircuitOpen) as found:
            self.circuit.call(HOST)
        return found.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_five_failures_in_a_row_open_the_circuit(bench: Bench) -> None:
    bench.fail(4)
    bench.succeed()
    bench.fail(4)
    assert bench.open == 0
    with capture_logs() as logs:
        bench.fail()
    assert bench.open == 1
    refused = bench.refused()
    assert refused.code == "circuit_open"
    assert refused.message.startswith(SILENT.message)
    assert "5 tries in a row" in refused.message
    [line] = logs
    assert line == {
        "event": "circuit_opened",
        "log_level": "warning",
        "integration": "acme",
        "purpose": "input",
        "host": HOST,
        "code": SILENT.code,
        "message": SILENT.message,
    }


def test_one_probe_at_a_time_and_its_success_closes_the_circuit(bench: Bench) -> None:
    bench.fail(5)
    bench.now = 29.9
    bench.refused()
    bench.now = 30.0
    with capture_logs() as logs, bench.circuit.call(HOST):
        bench.refused()  # the probe is under way
    assert bench.open == 0
    assert [line["event"] for line in logs] == ["circuit_closed"]
    bench.fail(4)
    bench.succeed()


def test_a_failed_probe_keeps_the_circuit_open_for_another_pause(bench: Bench) -> None:
    bench.fail(5)
    bench.now = 31.0
    bench.fail()
    bench.now = 60.9
    bench.refused()
    bench.now = 61.0
    bench.succeed()
    assert bench.open == 0


@pytest.mark.parametrize(
    "error", [TransientError("source_deadline_passed", "late"), PermanentError("no", "no"), asyncio.CancelledError()]
)
def test_a_probe_without_a_result_lets_another_begin(bench: Bench, error: BaseException) -> None:
    bench.fail(5)
    bench.now = 30.0
    with pytest.raises(type(error)), bench.circuit.call(HOST):
        raise error
    bench.succeed()
    assert bench.open == 0


def test_a_call_that_began_before_closes_the_circuit_if_it_succeeds(bench: Bench) -> None:
    """A slow host that answers is available."""
    early = bench.circuit.call(HOST)
    bench.fail(5)
    early.succeeded()
    bench.succeed()


def test_a_late_failure_of_an_earlier_call_does_not_delay_the_probe(bench: Bench) -> None:
    early = bench.circuit.call(HOST)
    bench.fail(5)
    bench.now = 29.0
    early.failed(SILENT)
    bench.now = 30.0
    bench.succeed()


def test_hosts_integrations_and_purposes_have_their_own_circuits(bench: Bench) -> None:
    bench.fail(5)
    bench.circuit.call("other.example").close()
    bench.circuits.of("other", "input").call(HOST).close()
    bench.circuits.of("acme", "result").call(HOST).close()
    assert bench.circuits.of("acme", "input") is bench.circuit


@pytest.mark.parametrize(("jitter", "pause"), [(0.0, 25.0), (1.0, 55.0)])
def test_refused_calls_come_back_spread_after_the_next_probe(bench: Bench, jitter: float, pause: float) -> None:
    bench.fail(5)
    bench.now, bench.jitter = 5.0, jitter
    assert bench.refused().retry_after == pause


@pytest.mark.parametrize(("outage", "spread"), [(60.0, 30.0), (600.0, 150.0), (86_400.0, 300.0)])
def test_the_longer_an_outage_the_rarer_a_job_comes_back(bench: Bench, outage: float, spread: float) -> None:
    bench.fail(5)
    bench.now, bench.jitter = outage, 1.0
    with bench.circuit.call(HOST):
        assert bench.refused().retry_after == spread


def test_a_closed_circuit_is_reported_once(bench: Bench) -> None:
    bench.fail(5)
    bench.now = 30.0
    bench.succeed()
    bench.succeed()
    assert bench.circuits.closed.get_nowait() == ("acme", "input")
    assert bench.circuits.closed.empty()


@pytest.mark.parametrize("works", [True, False])
async def test_a_call_may_wait_for_the_probe(bench: Bench, *, works: bool) -> None:
    bench.fail(5)
    bench.now = 30.0
    probe = bench.circuit.call(HOST)
    waiting = asyncio.create_task(bench.circuit.call_after_probe(HOST))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    probe.succeeded() if works else probe.failed(SILENT)
    if works:
        (await waiting).close()
    else:
        with pytest.raises(CircuitOpen):
            await waiting


async def test_the_next_caller_becomes_the_probe_if_one_is_cancelled(bench: Bench) -> None:
    bench.fail(5)
    bench.now = 30.0
    probe = bench.circuit.call(HOST)
    waiting = [asyncio.create_task(bench.circuit.call_after_probe(HOST)) for _ in range(2)]
    await asyncio.sleep(0.01)
    probe.close()
    await asyncio.sleep(0.01)
    [done] = [one for one in waiting if one.done()]
    (await done).succeeded()
    await asyncio.gather(*waiting)
    assert bench.open == 0


async def test_calls_that_waited_for_a_probe_do_not_begin_all_at_once(bench: Bench) -> None:
    """Turns that a limit on the rate gave them meanwhile are not saved up for the moment when the host works again."""
    bench.fail(5)
    bench.now = 30.0
    turns = asyncio.Semaphore(0)
    calls = [asyncio.create_task(bench.circuit.call_after_probe(HOST, turns.acquire)) for _ in range(4)]
    await asyncio.sleep(0.01)
    for expected in (1, 1, 1, 1):
        turns.release()
        await asyncio.sleep(0.01)
        assert sum(one.done() for one in calls) == expected
    calls[0].result().succeeded()
    for expected in (1, 2, 3, 4):
        await asyncio.sleep(0.01)
        assert sum(one.done() for one in calls) == expected
        turns.release()
    for one in calls[1:]:
        one.result().close()


def test_failing_hosts_are_forgotten_beyond_a_bound(bench: Bench) -> None:
    for number in range(1200):
        bench.fail(5, f"{number}.example")
    assert bench.open == 1000
