from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from pipeline.kafka import EmbeddedMissing
from pipeline.kafka.embedded import EmbeddedBroker


def test_it_gives_an_address_on_loopback() -> None:
    with EmbeddedBroker() as broker:
        host, _, port = broker.bootstrap_servers.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_without_its_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "confluent_kafka":
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.delitem(sys.modules, "confluent_kafka", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EmbeddedMissing, match=r"card-pipeline\[embedded\]"):
        EmbeddedBroker().__enter__()
