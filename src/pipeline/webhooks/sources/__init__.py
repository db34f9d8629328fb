"""Sources of webhooks, one module each: which event a request is, its topic, key and id. Pure.

To add a source, see docs/sources.md.
"""

from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.webhooks.sources.configured import ConfiguredSource
from pipeline.webhooks.sources.ecs import Ecs, EcsSource
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
from pipeline.webhooks.sources.weavr import Weavr, WeavrSource, WeavrVerifier

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
