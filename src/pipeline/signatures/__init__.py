"""Verification schemes for webhooks: pure functions of headers, raw body and time."""

from pipeline.signatures.build import scheme_of
from pipeline.signatures.errors import Fault, Reason, SignatureRefused
from pipeline.signatures.places import Place, SignedPart, value_at
from pipeline.signatures.protocols import Scheme, Secret
from pipeline.signatures.settings import (
    FieldSettings,
    HmacSettings,
    PublicKeySettings,
    SchemeSettings,
    SecretSettings,
    SharedSecretSettings,
    StandardWebhooksSettings,
)

__all__ = [
    "Fault",
    "FieldSettings",
    "HmacSettings",
    "Place",
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
    "scheme_of",
    "value_at",
]
