"""A subscriber in the process of another team: what it loads, registers, configures and prints there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

import pytest

from pipeline.observability import SubscriberMetrics, get_logger

SERVER_ONLY: Final = (
    "aiofiles",
    "aiohttp",
    "click",
    "cryptography",
    "jwt",
    "numpy",
    "obstore",
    "pyarrow",
    "pydantic_settings",
    "rich",
    "uvloop",
    "yarl",
)

LIBRARIES: Final = "import aiokafka, prometheus_client, pydantic, structlog"
RUN: Final = """
import asyncio
from pipeline.subscriber import Subscriber
subscriber = Subscriber("127.0.0.1:1", group="fraud", topics=["managed-cards"])

@subscriber.on_any
async def handle(event):
    pass

async def run():
    asyncio.get_running_loop().call_later(0.3, subscriber.stop)
    await subscriber.run()

asyncio.run(run())
"""
"""A subscriber that waits for its broker, then stops."""


def fresh(*parts: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    command = [sys.executable, "-W", "error", "-c", "\n".join(parts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def printed(*parts: str) -> Any:
    """Run code in an interpreter of its own; return the JSON that it prints."""
    return json.loads(fresh("import json, sys", *parts).stdout)


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that an import and a run load, without those that the four libraries load by themselves."""
    modules = "before = set(sys.modules)", RUN, "print(json.dumps(sorted(set(sys.modules) - before)))"
    return set(printed(LIBRARIES, *modules))


@pytest.mark.parametrize("package", SERVER_ONLY)
def test_it_loads_no_package_of_the_server(loaded: set[str], package: str) -> None:
    """Structlog loads rich by itself where rich is installed: with a subscriber alone it is not."""
    assert "pipeline.subscriber.subscriber" in loaded
    assert package not in {name.partition(".")[0] for name in loaded}


def test_it_loads_of_the_pipeline_only_what_it_needs(loaded: set[str]) -> None:
    packages = {name.split(".")[1] for name in loaded if name.startswith("pipeline.")}
    assert packages == {
        "contracts",
        "errors",
        "kafka",
        "observability",
        "plugins",
        "retry",
        "secret_files",
        "shares",
        "signals",
        "subscriber",
        "units",
    }
    server = {"admin", "embedded", "groups"}
    assert {name for name in loaded if name.startswith("pipeline.kafka.")} & {
        f"pipeline.kafka.{one}" for one in server
    } == set()


def test_every_module_of_it_logs_as_the_process_configured() -> None:
    """A logger of structlog's own would write to stdout where structlog is not configured."""
    kinds = """
logs = {name: type(module.log).__name__ for name, module in sys.modules.items() if hasattr(module, "log")}
print(json.dumps({name: kind for name, kind in logs.items() if name.startswith("pipeline.")}))
"""
    found = printed(RUN, kinds)
    assert len(found) > 5
    assert set(found.values()) == {type(get_logger("pipeline")).__name__}


def test_it_changes_nothing_in_aiokafka() -> None:
    """Other consumers of the same process keep the library that they installed."""
    snapshot = """
import importlib, inspect, pkgutil, aiokafka
for found in pkgutil.walk_packages(aiokafka.__path__, "aiokafka."):
    importlib.import_module(found.name)

def look():
    seen = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "aiokafka":
            for key, value in vars(module).items():
                seen[name, key] = id(value)
                if inspect.isclass(value) and value.__module__.startswith("aiokafka"):
                    seen |= {(value.__module__, value.__qualname__, one): id(two) for one, two in vars(value).items()}
    return seen

before = look()
"""
    compare = """
after = look()
print(json.dumps([len(before), [str(one) for one in after if after[one] != before.get(one)]]))
"""
    size, changed = printed(snapshot, RUN, compare)
    assert size > 1000
    assert changed == []


def test_it_registers_the_metrics_of_a_subscriber_and_no_others() -> None:
    """In a registry of its own: the process's own registry stays as it was."""
    names = """
from prometheus_client import REGISTRY
before = sorted(REGISTRY._names_to_collectors)
"""
    compare = """
own = sorted({metric.name for metric in subscriber.registry.collect()})
print(json.dumps([own, before == sorted(REGISTRY._names_to_collectors)]))
"""
    own, untouched = printed(names, RUN, compare)
    assert untouched
    assert own == sorted(metric.name for metric in SubscriberMetrics().registry.collect())
    assert {name.removeprefix("pipeline_").partition("_")[0] for name in own} == {
        "consumer",
        "kafka",
        "publish",
        "sends",
        "subscriber",
    }


def test_it_configures_nothing_for_the_whole_process() -> None:
    """Neither structlog nor logging, no hook for uncaught exceptions, no filter of warnings, no handler of signals."""
    look = """
import logging, signal, structlog, threading, warnings

def look():
    root = logging.getLogger()
    return [
        structlog.is_configured(), str(structlog.get_config()), root.level, root.handlers[:], root.filters[:],
        sys.excepthook, threading.excepthook, warnings.filters[:], warnings.showwarning,
        [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)],
    ]

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
before = look()
"""
    assert printed(LIBRARIES, look, RUN, "print(json.dumps([str(look()) == str(before)]))") == [True]


def test_it_prints_nothing_and_warns_on_stderr() -> None:
    """Stdout belongs to the program that subscribes."""
    done = fresh(RUN)
    assert done.stdout == ""
    assert "event='connection_failed'" in done.stderr


def test_its_lines_follow_what_the_process_configures() -> None:
    configured = fresh("import logging; logging.basicConfig(level='INFO', format='%(name)s %(message)s')", RUN)
    assert "pipeline.subscriber.subscriber event='connection_failed'" in configured.stderr
    own = "import structlog; structlog.configure(processors=[structlog.processors.JSONRenderer()])"
    assert '"event": "connection_failed"' in fresh(own, RUN).stdout
