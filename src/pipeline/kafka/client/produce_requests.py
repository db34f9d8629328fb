"""Fast encoding and decoding of produce requests. aiokafka makes several calls for each number."""

from __future__ import annotations

from io import BytesIO
from struct import Struct
from typing import Any, Final, Self

from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7

_NO_TRANSACTION: Final = b"\xff\xff"
_SHORT: Final = Struct(">h")
_INT: Final = Struct(">i")
_BEGIN: Final = Struct(">hii")
"""Acknowledgements, timeout, number of topics."""
_PARTITION: Final = Struct(">ii")
"""Number, size of the records."""
_APPENDED: Final = Struct(">ihqqq")
"""Partition, error code, offset, time, first offset of the log."""


class _Response(ProduceResponse_v7):  # type: ignore[misc]  # aiokafka has no types
    """The same as its parent, with faster decoding."""

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        """Return the decoded answer of a broker.

        Raises:
            struct.error: The answer ends too early.
        """
        raw, at = data if isinstance(data, bytes) else data.read(), _INT.size
        topics: list[tuple[str, list[tuple[int, ...]]]] = []
        for _ in range(*_INT.unpack_from(raw, 0)):
            (length,) = _SHORT.unpack_from(raw, at)
            at += _SHORT.size
            topic = raw[at : at + length].decode()
            at += length
            (count,) = _INT.unpack_from(raw, at)
            at += _INT.size
            partitions = [_APPENDED.unpack_from(raw, at + number * _APPENDED.size) for number in range(count)]
            at += count * _APPENDED.size
            topics.append((topic, partitions))
        return cls(topics, *_INT.unpack_from(raw, at))


class _Request(ProduceRequest_v7):  # type: ignore[misc]  # aiokafka has no types
    """The same as its parent, with faster encoding. It is never part of a transaction."""

    RESPONSE_TYPE = _Response

    def encode(self) -> bytes:
        """Return the encoded request."""
        written = [_NO_TRANSACTION, _BEGIN.pack(self.required_acks, self.timeout, len(self.topics))]
        for topic, partitions in self.topics:
            name = topic.encode()
            written += (_SHORT.pack(len(name)), name, _INT.pack(len(partitions)))
            for partition, records in partitions:
                written += (_PARTITION.pack(partition, len(records)), records)
        return b"".join(written)


class QuickProduceRequest(ProduceRequest):  # type: ignore[misc]  # aiokafka has no types
    """A produce request outside transactions, with faster encoding for brokers of Kafka 2.1 or later.

    tests/unit/kafka/client/test_produce_requests.py compares its bytes with those of its parent.
    """

    def build(self, request_struct_class: Any) -> Any:
        """See aiokafka."""
        return super().build(_Request if request_struct_class is ProduceRequest_v7 else request_struct_class)


class QuickProduceHandler(SendProduceReqHandler):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's handling of one produce request and its answer, with the faster request.

    Args:
        sender: aiokafka's sender, of an idempotent producer without transactions.
        batches: The batches by partition.
    """

    def create_request(self) -> QuickProduceRequest:
        """See aiokafka."""
        topics: dict[str, list[tuple[int, bytearray]]] = {}
        for (topic, partition), batch in self._batches.items():
            topics.setdefault(topic, []).append((partition, batch.get_data_buffer()))
        sender = self._sender
        return QuickProduceRequest(None, sender._acks, sender._request_timeout_ms, list(topics.items()))  # noqa: SLF001

    def handle_response(self, response: Any) -> None:
        """See aiokafka, which handles an answer with an error, or in another version."""
        if type(response) is not _Response or any(one[1] for _, there in response.topics for one in there):
            super().handle_response(response)
            return
        for topic, there in response.topics:
            for partition, _, offset, at, log_start_offset in there:
                batch = self._batches.get((topic, partition))
                if batch is not None:
                    batch.done(offset, at, log_start_offset)
