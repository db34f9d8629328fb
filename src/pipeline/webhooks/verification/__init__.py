"""Verification of webhooks. A scheme is a pure function of the headers, the raw body and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.on_demand import on_demand
from pipeline.webhooks.verification.errors import Fault, Reason, SignatureRefused
from pipeline.webhooks.verification.presets import PRESETS, WEAVR, WEAVR_LEGACY, Preset, PresetName, UrlCheck
from pipeline.webhooks.verification.protocols import Scheme, Secret
from pipeline.webhooks.verification.request_parts import HeaderFields
from pipeline.webhooks.verification.settings import (
    HmacSettings,
    SchemeSettings,
    SecretSettings,
    SharedSecretSettings,
    StandardWebhooksSettings,
    check_named_apart,
    is_active,
)
from pipeline.webhooks.verification.specs import (
    FieldSettings,
    HmacSpec,
    PublicKeySettings,
    RequestValue,
    SchemeSpec,
    SharedSecretSpec,
    SignedPart,
    StandardWebhooksSpec,
)

if TYPE_CHECKING:
    from pipeline.webhooks.verification.discovery import Match, discover
    from pipeline.webhooks.verification.explanation import Explanation, Step, explain
    from pipeline.webhooks.verification.quick import QuickHmac, quick_hmac
    from pipeline.webhooks.verification.schemes import scheme_of
else:
    __getattr__ = on_demand(
        __name__,
        discovery="Match discover",
        explanation="Explanation Step explain",
        quick="QuickHmac quick_hmac",
        schemes="scheme_of",
    )

__all__ = [
    "PRESETS",
    "WEAVR",
    "WEAVR_LEGACY",
    "Explanation",
    "Fault",
    "FieldSettings",
    "HeaderFields",
    "HmacSettings",
    "HmacSpec",
    "Match",
    "Preset",
    "PresetName",
    "PublicKeySettings",
    "QuickHmac",
    "Reason",
    "RequestValue",
    "Scheme",
    "SchemeSettings",
    "SchemeSpec",
    "Secret",
    "SecretSettings",
    "SharedSecretSettings",
    "SharedSecretSpec",
    "SignatureRefused",
    "SignedPart",
    "StandardWebhooksSettings",
    "StandardWebhooksSpec",
    "Step",
    "UrlCheck",
    "check_named_apart",
    "discover",
    "explain",
    "is_active",
    "quick_hmac",
    "scheme_of",
]
