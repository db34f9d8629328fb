"""How the callbacks of one integration are authenticated, bounded and retried."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from pipeline.outbound import TokenUrl
from pipeline.retry import FirstSeconds, MaxSeconds, RetrySettings
from pipeline.secret_files import TokenPath
from pipeline.units import Seconds


class OAuthSettings(BaseModel):
    """OAuth 2.0 client credentials as eCard Systems uses them: a JSON body, a JSON:API answer."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    token_url: TokenUrl = Field(
        description="URL of the token endpoint, e.g. https://api.example.com/api/v1/auth/token; hosts.allow_http and hosts.allow_private apply to it too"
    )
    client_id: str = Field(min_length=1, max_length=1024, description="Client identifier from eCard Systems")
    client_secret: SecretStr | None = Field(
        default=None, description="Client secret, if an environment variable holds it; else set client_secret_file"
    )
    client_secret_file: TokenPath | None = Field(
        default=None, description="File that holds the client secret; it is read before every token request"
    )
    scope: str | None = Field(
        default=None, min_length=1, max_length=1024, description="Scope to request; none by default"
    )

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.client_secret is None) == (self.client_secret_file is None):
            found = (
                'neither is given; write e.g. client_secret_file = "secrets/client"'
                if self.client_secret is None
                else "both are given; delete one"
            )
            raise ValueError(f"give exactly one of client_secret and client_secret_file: {found}")
        return self


class CallbackRetry(RetrySettings):
    """How long to wait between two callbacks of one outcome; ECS's ``Retry-After`` applies instead, if it sends one."""

    first_seconds: FirstSeconds = 2.0
    max_seconds: MaxSeconds = 900.0


class CallbackSettings(BaseModel):
    """How eCard Systems is notified of the outcome of a job: with a token from a file, or with OAuth."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    token_file: TokenPath | None = Field(
        default=None,
        description="File that holds the bearer token from onboarding. Replace it to rotate the token: the next callback uses the new one",
    )
    oauth: OAuthSettings | None = Field(default=None, description="OAuth client, instead of token_file")
    timeout_seconds: Seconds = Field(
        default=30.0,
        gt=0,
        le=600,
        description="How long one callback may take, from connecting to the end of the answer. Raise it if ECS answers slowly",
    )
    retry: CallbackRetry = Field(default=CallbackRetry(), description="Pauses between two callbacks of one outcome")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.token_file is None) == (self.oauth is None):
            found = (
                'neither is given; write e.g. token_file = "secrets/token"'
                if self.token_file is None
                else "both are given; delete one"
            )
            raise ValueError(f"give exactly one of token_file and oauth: {found}")
        return self
