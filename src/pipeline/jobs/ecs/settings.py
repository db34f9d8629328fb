"""How one integration's callbacks are authenticated, timed and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from pipeline.outbound.hosts import MalformedUrl, split_url
from pipeline.retry import FirstSeconds, MaxSeconds, RetrySettings
from pipeline.units import Seconds


class OAuthSettings(BaseModel):
    """OAuth 2.0 client credentials, in eCard Systems' form: a JSON body, a JSON:API answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token_url: str = Field(
        min_length=1,
        max_length=2048,
        description="URL that gives tokens, e.g. https://api.example.com/api/v1/auth/token; hosts.allow_http and hosts.allow_private hold for it too",
    )
    client_id: str = Field(min_length=1, max_length=1024, description="Client identifier from eCard Systems")
    client_secret: SecretStr | None = Field(
        default=None, description="Client secret; give this, by environment variable, or client_secret_file"
    )
    client_secret_file: Path | None = Field(
        default=None, description="File that holds the client secret, read again before every token request"
    )
    scope: str | None = Field(
        default=None, min_length=1, max_length=1024, description="Scope to ask for; none by default"
    )

    @field_validator("token_url")
    @classmethod
    def _a_url(cls, url: str) -> str:
        try:
            split_url(url)
        except MalformedUrl as error:
            raise ValueError(f"the URL {error.rule}") from None
        return url

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.client_secret is None) == (self.client_secret_file is None):
            raise ValueError("give exactly one of client_secret and client_secret_file")
        return self


class CallbackRetry(RetrySettings):
    """How long to wait between two callbacks of one outcome; ECS's ``Retry-After`` applies instead, if it sends one."""

    first_seconds: FirstSeconds = 2.0
    max_seconds: MaxSeconds = 900.0


class CallbackSettings(BaseModel):
    """Telling eCard Systems the outcome of a job: with a token from a file, or with OAuth."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token_file: Path | None = Field(
        default=None,
        description="File that holds the bearer token from onboarding, read again before every callback: replace it to rotate",
    )
    oauth: OAuthSettings | None = Field(default=None, description="OAuth client, instead of token_file")
    timeout_seconds: Seconds = Field(
        default=30.0, gt=0, le=600, description="Seconds for one request from connecting to the end of the answer"
    )
    retry: CallbackRetry = Field(default=CallbackRetry(), description="Pauses between two callbacks of one outcome")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.token_file is None) == (self.oauth is None):
            raise ValueError("give exactly one of token_file and oauth")
        return self
