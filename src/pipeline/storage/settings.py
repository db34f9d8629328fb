"""Settings of the storage that has the job store and the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from pipeline.units import Seconds

_PREFIX = r"^(?:[A-Za-z0-9_=+@,:~-][A-Za-z0-9_=+@,:~.-]*(?:/[A-Za-z0-9_=+@,:~-][A-Za-z0-9_=+@,:~.-]*)*)?$"


class LocalSettings(BaseModel):
    """A folder. Workers on several machines need a shared file system with hard links."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    kind: Literal["local"] = Field(default="local", description="`local`: a folder; `s3`: an S3-compatible bucket")
    path: Path = Field(
        default=Path("store"),
        description="The folder; it is created on first use, with mode 0700. Set it to a disk that outlives the process",
    )
    shared: bool = Field(
        default=False,
        description="Whether all hosts that run stages mount this very folder. Set it if they do; otherwise a stage does not start with a folder if Kafka runs on another host",
    )


class S3Settings(BaseModel):
    """A bucket of AWS S3, or of a compatible server that honours `If-None-Match: *` on PUT."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["s3"] = Field(description="`local`: a folder; `s3`: an S3-compatible bucket")
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Name of the bucket; it must exist")
    prefix: str = Field(
        default="",
        max_length=100,
        pattern=_PREFIX,
        description="Prefix of all keys, without a slash at either end. Set it if others use the bucket too",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#@]+/?$",
        description="URL of the server, e.g. `https://s3.example.com:9000`. Default: AWS, in the region",
    )
    region: str = Field(
        default="us-east-1",
        min_length=1,
        description="Region of the bucket. Keep the default for servers without regions",
    )
    path_style: bool = Field(
        default=True,
        description="Whether the URL names the bucket in its path (true) or in the host name (false). Your server decides",
    )
    access_key_id: SecretStr | None = Field(
        default=None,
        description="Access key. Default: from the environment (AWS_* variables, the web identity of a Kubernetes service account, the instance profile)",
    )
    secret_access_key: SecretStr | None = Field(default=None, description="Secret that belongs to access_key_id")
    session_token: SecretStr | None = Field(
        default=None,
        description="Session token, if the keys are temporary. They are not renewed, so use them for tests and short runs only",
    )
    allow_http: bool = Field(
        default=False,
        description="Allows an endpoint without TLS. The keys are not sent, but others on the network can read the data",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of certificate authorities to trust in addition. Set it if your own authority signed the server's certificate",
    )
    proxy: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#@]+/?$",
        description="URL of an egress proxy. Default: HTTPS_PROXY and NO_PROXY of the environment",
    )
    request_timeout_seconds: Seconds = Field(
        default=30.0,
        gt=0,
        le=600,
        description="How long one request may take, including its answer. While an object is read, it limits the wait for the next bytes. Raise it for a slow store",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            missing = "access_key_id" if self.access_key_id is None else "secret_access_key"
            raise ValueError(
                "access_key_id and secret_access_key: give both, or neither to take them from the environment; "
                f"{missing} is missing"
            )
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token: belongs to access_key_id and secret_access_key; give them too")
        if self.endpoint is not None and self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError("endpoint: http:// needs allow_http = true; prefer https://")
        return self


StoreSettings = Annotated[LocalSettings | S3Settings, Field(discriminator="kind")]
"""Settings of a folder or a bucket. ``kind`` says which."""
