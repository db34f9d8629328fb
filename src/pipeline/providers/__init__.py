"""One module per source: delivery to topic, key, identity. Pure.

To add a source, see docs/providers.md.
"""

from pipeline.providers.ecs import EcsProvider
from pipeline.providers.findings import UNKNOWN_PATH, Finding, InvalidBody
from pipeline.providers.protocols import (
    Delivery,
    Identified,
    Policy,
    Provider,
    SchemeVerifier,
    SuccessStatus,
    UnverifiedStatus,
    Verified,
    Verifier,
)
from pipeline.providers.weavr import WeavrProvider, WeavrVerifier

__all__ = [
    "UNKNOWN_PATH",
    "Delivery",
    "EcsProvider",
    "Finding",
    "Identified",
    "InvalidBody",
    "Policy",
    "Provider",
    "SchemeVerifier",
    "SuccessStatus",
    "UnverifiedStatus",
    "Verified",
    "Verifier",
    "WeavrProvider",
    "WeavrVerifier",
]
