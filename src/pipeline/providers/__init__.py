"""One module per source: delivery to topic, key, identity. Pure.

To add a source, see docs/providers.md.
"""

from pipeline.providers.ecs import EcsProvider
from pipeline.providers.findings import Finding, InvalidBody
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

__all__ = [
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
]
