"""The one table of published contracts: every kind of value that crosses a wire, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from pipeline.contracts import (
    SPECS,
    AuditAction,
    AuditEvent,
    BatchChunk,
    BatchCompleted,
    BatchFailed,
    BatchProcessed,
    BatchRequested,
    BatchUploaded,
    CallbackBody,
    Topic,
    schema_uri,
)
from pipeline.contracts.weavr import KINDS, Entity, EventKind


@dataclass(frozen=True, slots=True)
class Contract:
    """One kind of value and its version.

    Attributes:
        name: Names its files; for events the event's type.
        model: How it reads.
        provider: Who says it: ``weavr``, ``ecs`` or ``pipeline``.
        topic: Where it is published; None for what goes over HTTP alone.
        path: What the provider puts behind its base URL, or nothing.
        keys: What the record's key is: the first whose fields the value has.
        types: Event types (``ce_type``) of its records.
    """

    name: str
    model: type[BaseModel]
    provider: str
    topic: Topic | None
    keys: tuple[str, ...]
    types: tuple[str, ...]
    path: str = ""
    version: int = 1

    @property
    def title(self) -> str:
        """Name of its class in generated code, its own: the model's, unless several events have that."""
        if sum(other.model is self.model for other in CONTRACTS) == 1:
            return self.model.__name__
        words = self.name.replace(".", "_").split("_")[1:]
        return "".join(word.capitalize() for word in words) + "Event"

    @property
    def ident(self) -> str:
        """``$id`` of its schema; records have it as ``ce_dataschema``."""
        return schema_uri(self.name, self.version)

    @property
    def schema(self) -> str:
        """Its schema's file, in ``schemas/``."""
        folder = "events/" if self.topic else ""
        return f"{folder}{self.name}.v{self.version}.json"

    @property
    def example(self) -> str:
        """Its example's file, in ``schemas/``."""
        return f"examples/{self.name}.v{self.version}.json"

    @property
    def sensitive(self) -> bool:
        """Whether its topic is for few: it holds bearer secrets."""
        return self.topic is not None and SPECS[self.topic].sensitive


def _of_weavr(kind: EventKind) -> Contract:
    keys = (*map(_key, kind.entities), f"{{integration}}/{kind.type}")
    return Contract(kind.type, kind.model, "weavr", kind.topic, keys, (kind.type,), kind.path, kind.version)


def _key(entity: Entity) -> str:
    location = ".".join(entity.path)
    name = "{card or account}" if entity.name == "instrument" else entity.name
    return f"{{integration}}/{name}/{{{f'sha256({location})[:16]' if entity.personal else location}}}"


def _of_a_job(topic: Topic, model: type[BaseModel]) -> Contract:
    provider = "ecs" if topic is Topic.BATCH_REQUESTED else "pipeline"
    return Contract(topic.value, model, provider, topic, ("{integration}/{job_guid}",), (topic.value,))


CONTRACTS: Final[tuple[Contract, ...]] = (
    *map(_of_weavr, KINDS),
    _of_a_job(Topic.BATCH_REQUESTED, BatchRequested),
    Contract(
        Topic.BATCH_CHUNKS.value,
        BatchChunk,
        "pipeline",
        Topic.BATCH_CHUNKS,
        ("{integration}/{job_guid}#{number}",),
        (Topic.BATCH_CHUNKS.value,),
    ),
    _of_a_job(Topic.BATCH_PROCESSED, BatchProcessed),
    _of_a_job(Topic.BATCH_UPLOADED, BatchUploaded),
    _of_a_job(Topic.BATCH_FAILED, BatchFailed),
    _of_a_job(Topic.BATCH_COMPLETED, BatchCompleted),
    Contract(
        Topic.AUDIT_EVENTS.value,
        AuditEvent,
        "pipeline",
        Topic.AUDIT_EVENTS,
        ("{integration}/{job_guid}", "{integration}", "-"),
        tuple(f"audit.{action.value}" for action in AuditAction),
    ),
    Contract("callback", CallbackBody, "pipeline", None, (), ()),
)
"""All of them: Weavr's in the order of its description, then the jobs', the audit log's, and ECS's callback."""
