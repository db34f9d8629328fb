"""The table of published contracts: every kind of value that others see, and its topic or path."""

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
    """One kind of value, with its version.

    Attributes:
        name: Name of its files; for events, the event's type.
        model: Its model.
        provider: Its origin: ``weavr``, ``ecs`` or ``pipeline``.
        topic: Its topic; None for values that only HTTP carries.
        path: The path that the provider appends to its base URL, or empty.
        keys: Possible keys of the record; the first one whose fields the value has is used.
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
        """Unique name of its class in generated code: the model's name, unless several events share the model."""
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
        """Whether access to its topic must be tight, because it holds bearer secrets."""
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
"""All contracts: Weavr's in the order of its description, then jobs, the audit log, and ECS's callback."""
