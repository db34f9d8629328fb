"""Verification schemes for webhooks: pure functions of headers, raw body and time."""

from pipeline.webhooks.verification.build import scheme_of
from pipeline.webhooks.verification.errors import Fault, Reason, SignatureRefused
from pipeline.webhooks.verification.explaining import Explanation, Step, explain
from pipeline.webhooks.verification.places import Place, SignedPart, value_at
from pipeline.webhooks.verification.presets import PRESETS, WEAVR, WEAVR_LEGACY, Preset
from pipeline.webhooks.verification.protocols import Scheme, Secret
from pipeline.webhooks.verification.settings import (
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
from pipeline.webhooks.verification.trying import Match, matching

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
