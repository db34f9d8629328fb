"""From settings to a scheme. To add one: settings in the union, a module with the class, a line here, tests."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.webhooks.verification.hmac_of_parts import HmacOfParts
from pipeline.webhooks.verification.protocols import Scheme, Secret
from pipeline.webhooks.verification.settings import HmacSettings, SharedSecretSettings, StandardWebhooksSettings
from pipeline.webhooks.verification.shared_secret import SharedSecret
from pipeline.webhooks.verification.standard_webhooks import StandardWebhooks


def scheme_of(
    settings: SharedSecretSettings | HmacSettings | StandardWebhooksSettings, secrets: Sequence[Secret]
) -> Scheme:
    """Return the scheme that the settings describe, with the secrets that their files held.

    Raises:
        FatalError: A secret is not written as the settings say (``secret_malformed``).
    """
    if isinstance(settings, SharedSecretSettings):
        return SharedSecret(settings, secrets)
    if isinstance(settings, HmacSettings):
        return HmacOfParts(settings, secrets)
    return StandardWebhooks(settings, secrets)
