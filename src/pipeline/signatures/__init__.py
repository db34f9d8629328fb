"""Verification schemes for webhooks: pure functions of headers, raw body and time."""

from pipeline.signatures.build import scheme_of
from pipeline.signatures.errors import Fault, Reason, SignatureRefused
from pipeline.signatures.protocols import Scheme, Secret
from pipeline.signatures.settings import HmacSettings, SchemeSettings, SecretSettings, SharedSecretSettings

__all__ = [
    "Fault",
    "HmacSettings",
    "Reason",
    "Scheme",
    "SchemeSettings",
    "Secret",
    "SecretSettings",
    "SharedSecretSettings",
    "SignatureRefused",
    "scheme_of",
]
