"""Produce requests that are written and read in one go, against aiokafka's own."""

from __future__ import annotations

import inspect
import struct
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.client.produce_requests import QuickProduceHandler, QuickProduceRequest

int16 = st.integers(-(1 << 15), (1 << 15) - 1)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
names = st.text("abc.-_\u00e9", max_size=9)
sent = st.lists(st.tuples(names, st.lists(st.tuples(int32, st.binary(max_size=9)), max_size=3)), max_size=4)
answered = st.lists(st.tuples(names, st.lists(st.tuples(int32, int16, int64, int64, int64), max_size=3)), max_size=4)


@given(topics=sent, acks=st.sampled_from([-1, 0, 1]), timeout=int32, most=st.integers(0, 20))
def test_the_same_bytes_are_sent(topics: Any, acks: int, timeout: int, most: int) -> None:
    """Law: for whatever version a broker knows."""
    versions = {0: (0, most)}
    quick = QuickProduceRequest(None, acks, timeout, topics).prepare(versions)
    plain = ProduceRequest(None, acks, timeout, topics).prepare(versions)
    assert quick.encode() == plain.encode()
    assert quick.build_request_header(7, "id").encode() == plain.build_request_header(7, "id").encode()
    assert (quick.API_VERSION, quick.required_acks) == (plain.API_VERSION, acks)


@given(topics=answered, throttle=int32, header=st.binary(max_size=4), after=st.sampled_from([b"", b"more"]))
def test_the_same_answer_is_read(topics: Any, throttle: int, header: bytes, after: bytes) -> None:
    """Law: from where the header ended, whatever comes behind it."""
    response = QuickProduceRequest(None, -1, 1, []).prepare({0: (3, 7)}).RESPONSE_TYPE
    wire = BytesIO(header + ProduceResponse_v7(topics, throttle).encode() + after)
    wire.seek(len(header))
    found = response.decode(wire)
    assert found == ProduceResponse_v7(topics, throttle)
    assert [(topic, [tuple(one) for one in there]) for topic, there in found.topics] == topics
    assert found.API_VERSION == 7


def test_an_answer_that_ends_too_early_is_none() -> None:
    response = QuickProduceRequest(None, -1, 1, []).prepare({0: (3, 7)}).RESPONSE_TYPE
    wire = ProduceResponse_v7([("topic", [(0, 0, 5, -1, 0)])], 0).encode()
    for end in range(len(wire)):
        with pytest.raises((struct.error, UnicodeDecodeError)):
            response.decode(wire[:end])


def test_a_request_is_made_of_the_batches_of_a_node() -> None:
    batches = {TopicPartition("a", 1): b"one", TopicPartition("b", 0): b"two", TopicPartition("a", 0): b"three"}
    made = {at: SimpleNamespace(get_data_buffer=lambda data=data: data) for at, data in batches.items()}
    sender = SimpleNamespace(
        client=None,
        _acks=-1,
        _request_timeout_ms=9,
        _retry_backoff=0.1,
        _txn_manager=SimpleNamespace(transactional_id=None),
    )
    request = QuickProduceHandler(sender, made).create_request().prepare({0: (3, 11)})
    plain = ProduceRequest_v7(None, -1, 9, [("a", [(1, b"one"), (0, b"three")]), ("b", [(0, b"two")])])
    assert request.encode() == plain.encode()


class Recorder:
    """A batch that notes its end."""

    def __init__(self) -> None:
        self.ends: list[object] = []

    def done(self, *position: int) -> None:
        self.ends.append(position)

    def failure(self, exception: Exception) -> None:
        self.ends.append(type(exception))


@given(
    errors=st.lists(st.sampled_from([0, 0, 0, 2, 3, 10, 17, 45, 46, 47]), min_size=4, max_size=4),
    version=st.sampled_from([7, 7, 3]),
    known=st.integers(0, 4),
)
def test_an_answer_ends_the_same_batches_in_the_same_way(errors: list[int], version: int, known: int) -> None:
    """Law: and the same ones are sent again."""
    found: list[object] = []
    for handler in (QuickProduceHandler, SendProduceReqHandler):
        batches = {TopicPartition("ab"[number % 2], number): Recorder() for number in range(known)}
        client = SimpleNamespace(force_metadata_update=lambda: None)
        made = handler(SimpleNamespace(client=client, _retry_backoff=0.1, _txn_manager=object()), batches)
        response = QuickProduceRequest(None, -1, 1, []).prepare({0: (3, version)}).RESPONSE_TYPE
        fields = [
            (number, error, 10 + number, 20, 30)[: 4 if version == 3 else 5] for number, error in enumerate(errors)
        ]
        wire = (ProduceResponse_v7 if version == 7 else response)([("a", fields[::2]), ("b", fields[1::2])], 0).encode()
        made.handle_response(response.decode(BytesIO(wire)))
        again = [at for at, batch in batches.items() if batch in made._to_reenqueue]
        found.append(([batch.ends for batch in batches.values()], again))
    assert found[0] == found[1]


def test_the_method_that_is_replaced_has_not_changed() -> None:
    """The producer sends as it does, with another handler (``AioProducer._watch_sending``)."""
    source = inspect.getsource(Sender._send_produce_req)
    code = source[source.index('"""', source.index('"""') + 3) + 3 :]
    assert [line.strip() for line in code.splitlines() if line.strip()] == [
        "handler = SendProduceReqHandler(self, batches)",
        "await handler.do(node_id)",
        "self._in_flight.remove(node_id)",
        "for tp in batches:",
        "self._muted_partitions.remove(tp)",
    ]
