"""One module per source: delivery to topic, key, identity. Pure.

To add a source, see docs/providers.md.
"""

from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.webhooks.sources.configured import ConfiguredProvider
from pipeline.webhooks.sources.ecs import Ecs, EcsProvider
from pipeline.webhooks.sources.protocols import (
    UNKNOWN_PATH,
    Delivery,
    Explainable,
    Identified,
    Policy,
    Provider,
    ProviderKind,
    SchemeVerifier,
    SuccessStatus,
    UnverifiedStatus,
    Verified,
    Verifier,
)
from pipeline.webhooks.sources.weavr import Weavr, WeavrProvider, WeavrVerifier

__all__ = [
    "UNKNOWN_PATH",
    "ConfiguredProvider",
    "Delivery",
    "Ecs",
    "EcsProvider",
    "Explainable",
    "Finding",
    "Identified",
    "InvalidBody",
    "Policy",
    "Provider",
    "ProviderKind",
    "SchemeVerifier",
    "SuccessStatus",
    "UnverifiedStatus",
    "Verified",
    "Verifier",
    "Weavr",
    "WeavrProvider",
    "WeavrVerifier",
]
