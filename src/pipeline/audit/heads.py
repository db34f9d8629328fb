"""What to keep elsewhere, so that a chain that was cut off or written anew is found out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.audit.segments import ROOT, parse_folder
from pipeline.audit.tail import find_tail
from pipeline.errors import PermanentError
from pipeline.storage import ObjectStore


class Head(BaseModel):
    """The end of one partition's chain at some time.

    Attributes:
        segment: Running number of the last segment.
        hash: Its closing hash: covers every byte of the chain up to it.
        events: Events of the partition up to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    partition: int = Field(ge=0)
    epoch: int = Field(ge=0)
    segment: int = Field(ge=0)
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    events: int = Field(ge=0)


_HEADS: Final = TypeAdapter(list[Head])


async def read_heads(store: ObjectStore) -> list[Head]:
    """Return the head of every partition, in order. Reads the last segments only: verify the log too.

    Raises:
        FatalError: A chain's end is damaged (``audit_chain_damaged``).
        StoreUnavailable: Try again.
    """
    found = []
    for topic in await store.folders(ROOT):
        for name in await store.folders(f"{ROOT}{topic}/"):
            partition = parse_folder(name)
            tail = None if partition is None else await find_tail(store, topic, partition)
            if tail is not None:
                found.append(
                    Head(
                        topic=topic,
                        partition=tail.place.partition,
                        epoch=tail.place.epoch,
                        segment=tail.place.number,
                        hash=tail.closing.hash,
                        events=tail.closing.total,
                    )
                )
    return found


def dump_heads(heads: Sequence[Head]) -> str:
    """Return the heads as JSON, for a file that is kept where the log's writers cannot change it."""
    return _HEADS.dump_json(list(heads), indent=2).decode() + "\n"


def load_heads(text: str | bytes) -> list[Head]:
    """Return the heads that :func:`dump_heads` wrote.

    Raises:
        PermanentError: It is something else (``audit_heads_invalid``).
    """
    try:
        return _HEADS.validate_json(text)
    except ValidationError as error:
        raise PermanentError(
            "audit_heads_invalid", "The file of heads is not what `pipeline audit head --json` prints"
        ) from error
