"""From settings to a scheme. To add one: settings in the union, a module with the class, a line here, tests."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.signatures.hmac_of_body import HmacOfBody
from pipeline.signatures.protocols import Scheme, Secret
from pipeline.signatures.settings import HmacSettings, SharedSecretSettings
from pipeline.signatures.shared_secret import SharedSecret


def scheme_of(settings: SharedSecretSettings | HmacSettings, secrets: Sequence[Secret]) -> Scheme:
    """Return the scheme that the settings describe, with the secrets that their files held."""
    if isinstance(settings, SharedSecretSettings):
        return SharedSecret(settings, secrets)
    return HmacOfBody(settings, secrets)
