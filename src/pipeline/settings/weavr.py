"""Everything that is configured for one Weavr integration: the table ``[weavr.NAME]``."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from pipeline.settings.files import resolved
from pipeline.settings.integration import WEBHOOK_PATH, with_default_path
from pipeline.webhooks.sources.settings import WeavrOptions
from pipeline.webhooks.verification import Secret, SecretSettings, check_named_apart


class WeavrIntegration(WeavrOptions):
    """One Weavr integration. Its name is the key of its table."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    webhook_path: str = Field(
        default="/webhooks/weavr/NAME",
        pattern=WEBHOOK_PATH,
        description="Path that Weavr's event paths are put behind; NAME is the table's",
    )
    secrets: tuple[SecretSettings, ...] = Field(
        min_length=1,
        max_length=16,
        description="Your API keys at Weavr, with dates where one takes over from another; Weavr signs with that of "
        "your oldest API client",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_path(cls, data: Any) -> Any:
        return with_default_path(data, "/webhooks/weavr/")

    @model_validator(mode="after")
    def _named_apart(self) -> WeavrIntegration:
        check_named_apart(self.secrets)
        return self

    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Return the API keys as their files hold them now.

        Raises:
            SecretUnreadable: A file went away since the settings were loaded.
        """
        return resolved(self.secrets)
