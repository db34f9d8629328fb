"""One module per source: delivery to topic, key, identity. Pure.

To add a source, see docs/providers.md.
"""

from pipeline.providers.configured import ConfiguredProvider
from pipeline.providers.ecs import Ecs, EcsProvider
from pipeline.providers.findings import UNKNOWN_PATH, Finding, InvalidBody
from pipeline.providers.protocols import (
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
from pipeline.providers.weavr import Weavr, WeavrProvider, WeavrVerifier

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
