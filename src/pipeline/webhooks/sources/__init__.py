"""Sources of webhooks, one module each. A source finds the event, topic, key and id of a request; it does no I/O.

To add a source, see docs/how-to/write-a-source.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.on_demand import on_demand
from pipeline.webhooks.sources.protocols import (
    UNKNOWN_PATH,
    Explainable,
    Identified,
    Policy,
    SchemeVerifier,
    Source,
    SourceKind,
    SuccessStatus,
    UnverifiedStatus,
    Verified,
    Verifier,
    WebhookRequest,
)

if TYPE_CHECKING:
    from pipeline.webhooks.sources.configured import ConfiguredSource
    from pipeline.webhooks.sources.ecs import Ecs, EcsSource
    from pipeline.webhooks.sources.weavr import Weavr, WeavrSource, WeavrVerifier
else:
    __getattr__ = on_demand(
        __name__,
        configured="ConfiguredSource",
        ecs="Ecs EcsSource",
        weavr="Weavr WeavrSource WeavrVerifier",
    )

__all__ = [
    "UNKNOWN_PATH",
    "ConfiguredSource",
    "Ecs",
    "EcsSource",
    "Explainable",
    "Finding",
    "Identified",
    "InvalidBody",
    "Policy",
    "SchemeVerifier",
    "Source",
    "SourceKind",
    "SuccessStatus",
    "UnverifiedStatus",
    "Verified",
    "Verifier",
    "Weavr",
    "WeavrSource",
    "WeavrVerifier",
    "WebhookRequest",
]
