"""The hosts that requests may reach, the proxy, and the trusted authorities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from pipeline.outbound.urls import HostPattern, MalformedUrl, split_url

Purpose = Literal["input", "result", "callback"]
"""The purpose of a URL. It is also the name of the list in :class:`HostRules` that must contain the URL's host."""


def _well_formed(url: str) -> str:
    try:
        split_url(url)
    except MalformedUrl as error:
        raise ValueError(f"the URL {error.rule}") from None
    return url


TokenUrl = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_well_formed)]
"""URL of a token endpoint. The rules for hosts and schemes are checked before each request."""


class HostRules(BaseModel):
    """Hosts that the URLs of an integration's messages may name. An empty list allows none."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    input: tuple[str, ...] = Field(
        default=(),
        description="Hosts of input_file_url. Write a name, name:port, *.suffix (any name below the suffix) or an IP address; without a port, only the scheme's default port is allowed",
    )
    result: tuple[str, ...] = Field(default=(), description="Hosts of result_upload_url, written as for input")
    callback: tuple[str, ...] = Field(default=(), description="Hosts of callback_url, written as for input")
    allow_http: bool = Field(
        default=False,
        description="Allows http:// URLs: cards and tokens are then sent unencrypted. For tests on one machine",
    )
    allow_private: bool = Field(
        default=False,
        description="Allows hosts at private and loopback addresses, for servers in your own network. The metadata addresses of clouds stay refused unless the list names the address itself; link-local, multicast and reserved addresses are refused in any case",
    )
    allow_nat64: bool = Field(
        default=False,
        description="Allows NAT64 addresses (64:ff9b::/96) that lead to public IPv4 addresses, for an IPv6-only network whose DNS server returns such addresses",
    )

    @field_validator("input", "result", "callback")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                HostPattern.parse(pattern)
            except MalformedUrl as error:
                raise ValueError(
                    f"{pattern!r} {error.rule}; write files.example.com, files.example.com:8443, *.example.com or 192.0.2.7"
                ) from None
        return patterns

    def patterns(self, purpose: Purpose) -> tuple[HostPattern, ...]:
        """Return the hosts allowed for a purpose."""
        texts = {"input": self.input, "result": self.result, "callback": self.callback}[purpose]
        return tuple(HostPattern.parse(text) for text in texts)


class NetworkSettings(BaseModel):
    """How file transfers, callbacks and the ``http`` processor connect to hosts outside."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of those of the system; it may hold several. Set it if your network has its own authority",
    )
    proxy: SecretStr | None = Field(
        default=None,
        description="URL of the egress proxy (http://[user:password@]host:port) for all hosts. The proxy resolves the names, so it must itself refuse private addresses",
    )

    @field_validator("proxy")
    @classmethod
    def _proxy_url(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is None:
            return None
        scheme, _, rest = proxy.get_secret_value().partition("://")
        try:
            split_url(f"{scheme}://{rest.rpartition('@')[2]}")
        except MalformedUrl as error:
            raise ValueError(f"the proxy {error.rule}; write http://proxy.example.com:3128") from None
        return proxy
