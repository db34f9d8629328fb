"""Verification schemes for webhooks: pure functions of headers, raw body and time."""

from pipeline.signatures.build import scheme_of
from pipeline.signatures.errors import Fault, Reason, SignatureRefused
from pipeline.signatures.explaining import Explanation, Step, explain
from pipeline.signatures.places import Place, SignedPart, value_at
from pipeline.signatures.presets import PRESETS, WEAVR, WEAVR_LEGACY, Preset
from pipeline.signatures.protocols import Scheme, Secret
from pipeline.signatures.settings import (
    FieldSettings,
    HmacSettings,
    PublicKeySettings,
    SchemeSettings,
    SecretSettings,
    SharedSecretSettings,
    StandardWebhooksSettings,
    check_named_apart,
    is_active,
)
from pipeline.signatures.trying import Match, matching

__all__ = [
    "PRESETS",
    "WEAVR",
    "WEAVR_LEGACY",
    "Explanation",
    "Fault",
    "FieldSettings",
    "HmacSettings",
    "Match",
    "Place",
    "Preset",
    "PublicKeySettings",
    "Reason",
    "Scheme",
    "SchemeSettings",
    "Secret",
    "SecretSettings",
    "SharedSecretSettings",
    "SignatureRefused",
    "SignedPart",
    "StandardWebhooksSettings",
    "Step",
    "check_named_apart",
    "explain",
    "is_active",
    "matching",
    "scheme_of",
    "value_at",
]
