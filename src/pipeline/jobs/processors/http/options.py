"""Options for the requests to the card service, and for the meaning of its answers."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from pipeline.contracts.json_pointer import Pointer
from pipeline.jobs.processors.http.template import FACTS, BodyTemplate, Template
from pipeline.outbound import MalformedUrl, TokenUrl, UrlParts, split_url
from pipeline.secret_files import TokenPath
from pipeline.units import Bytes, Count, Seconds

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

Status = Annotated[int, Field(ge=200, le=599)] | Annotated[str, Field(pattern=r"^[2-5]xx$")]
"""A status, or a class of statuses such as ``5xx``."""

_CARD_FACTS: Final = frozenset({"__card_number", "__record", "__idempotency_key"})

HeaderName = Annotated[str, Field(pattern=rf"^{_HEADER_NAME.pattern}$")]


class BasicAuth(BaseModel):
    """User and password of HTTP Basic."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    user: str = Field(min_length=1, max_length=256, description="Name of the user, without a colon")
    password_file: TokenPath = Field(description="File with the password; read again when it changes")

    @field_validator("user")
    @classmethod
    def _sendable(cls, user: str) -> str:
        if ":" in user or not user.isprintable():
            raise ValueError("must not hold a colon or a control character")
        return user


class OAuthClient(BaseModel):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    token_url: TokenUrl = Field(description="URL of the token endpoint; allow_http and allow_private apply to it too")
    client_id: str = Field(min_length=1, max_length=1024, description="Client identifier")
    client_secret_file: TokenPath = Field(description="File with the client secret; read before every token request")
    scope: str | None = Field(default=None, min_length=1, max_length=1024, description="Scope to request")


class Decision(BaseModel):
    """How a value in an answer decides the result of its card."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    pointer: Pointer = Field(description='JSON pointer to the value that decides, e.g. "/status"')
    ok: tuple[str, ...] = Field(min_length=1, description="Values that mean: the card is ok; numbers and true as text")
    failed: tuple[str, ...] = Field(
        default=(), description="Values that mean: the card failed; a value in no list means the same"
    )
    retry: tuple[str, ...] = Field(default=(), description="Values that mean: try this card again")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        values = (*self.ok, *self.failed, *self.retry)
        doubled = sorted({value for value in values if values.count(value) > 1})
        if doubled:
            raise ValueError(f"{doubled[0]!r} appears twice: write each value into only one of ok, failed and retry")
        return self


class Batch(BaseModel):
    """Several cards per request: a JSON array with a ``body`` for each card."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    size: Count = Field(ge=2, le=1000, description="Maximum number of cards per request")
    field: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the field of a JSON object that holds the array. Default: the array is the whole body",
    )
    answers: Pointer | None = Field(
        default=None, description="JSON pointer to the array of answers. Default: it is the whole answer"
    )
    match: Pointer | None = Field(
        default=None,
        description="JSON pointer, in the answer of a card, to its key. Default: answers keep the order of the cards",
    )
    key: str = Field(
        default="{__idempotency_key}",
        min_length=1,
        description="Key of a card for match, a template as in body; different for each card",
    )

    @field_validator("key")
    @classmethod
    def _compiles(cls, key: str) -> str:
        if not Template(key).names:
            raise ValueError("must name a column or {__idempotency_key}, so that each card has its own key")
        return key


class HttpOptions(BaseModel):
    """Options of the processor ``http``."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    url: str = Field(
        description="URL of a card; {column} (not in the host) becomes the column's value, percent-encoded"
    )
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = Field(default="POST", description="HTTP method")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Header fields sent with every card. Put no secrets here; see token_file"
    )
    body: dict[str, JsonValue] | list[JsonValue] | None = Field(
        default=None,
        description="JSON document sent with each card, a table or text; {column} in a string is the column's value",
    )
    token_file: TokenPath | None = Field(
        default=None, description="File with the service's token; it is read again when it changes"
    )
    token_header: HeaderName = Field(default="Authorization", description="Header field that carries the token")
    token_prefix: str = Field(default="Bearer ", description="Text in front of the token in its header field")
    basic: BasicAuth | None = Field(default=None, description="User and password, instead of token_file")
    oauth: OAuthClient | None = Field(default=None, description="OAuth client, instead of token_file")
    client_cert_file: Path | None = Field(
        default=None,
        description="PEM file of the client certificate chain, for mutual TLS; read again when it changes",
    )
    client_key_file: Path | None = Field(
        default=None, description="PEM file of the unencrypted private key of client_cert_file"
    )
    idempotency_header: HeaderName | Literal[""] = Field(
        default="Idempotency-Key",
        description='Header field with the card\'s idempotency key, which is the same in every try; "" sends none',
    )
    ok_statuses: tuple[Status, ...] = Field(default=("2xx",), description="Answers that mean: the card is ok")
    failed_statuses: tuple[Status, ...] = Field(
        default=(),
        description="Answers that mean: the card failed, checked first; an answer in no list also means failed",
    )
    retry_statuses: tuple[Status, ...] = Field(
        default=(408, 425, 429, 500, 502, 503, 504), description="Answers that mean: try this card again"
    )
    credentials_statuses: tuple[Status, ...] = Field(
        default=(401, 403, 407),
        description="Answers that mean: the token is not accepted; the job is retried later, and no card fails",
    )
    decision: Decision | None = Field(
        default=None,
        description="Where an answer with a status of ok_statuses has the result of a card. Default: the card is ok",
    )
    batch: Batch | None = Field(default=None, description="Several cards per request. Default: one")
    result_columns: dict[str, Pointer] = Field(
        default_factory=dict,
        description='Result columns from the answer of a card: name and JSON pointer, e.g. reference = "/data/id"',
    )
    timeout_seconds: Seconds = Field(default=30.0, gt=0, description="Total time for one request")
    max_answer_bytes: Bytes = Field(default=65_536, ge=0, description="Maximum number of bytes read of an answer")
    allow_http: bool = Field(
        default=False, description="Whether url may be http://, which sends cards and token unencrypted"
    )
    allow_private: bool = Field(
        default=False, description="Whether the service may be at a private or loopback address"
    )

    @field_validator("body", mode="before")
    @classmethod
    def _body_parsed(cls, body: object) -> object:
        if not isinstance(body, str):
            return body
        try:
            return json.loads(body)
        except ValueError as error:
            raise ValueError(f"not a JSON document: {error}") from error

    @field_validator("body")
    @classmethod
    def _body_compiles(cls, body: JsonValue) -> JsonValue:
        BodyTemplate(body)
        return body

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not value.isprintable() or not value.isascii():
                raise ValueError(
                    f"{name!r} is not a valid header field, or its value has characters that cannot be sent"
                )
        return headers

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _ = self.templates  # a lone brace is refused here
        if self.parts.scheme == "http" and not self.allow_http:
            raise ValueError("url must begin with https:// (allow_http = true would allow http)")
        ours = {self.idempotency_header.lower()}
        self._check_credentials()
        if self.token_file is not None:
            ours.add(self.token_header.lower())
        elif self.basic is not None or self.oauth is not None:
            ours.add("authorization")
        doubled = [name for name in self.headers if name.lower() in ours]
        if doubled:
            raise ValueError(f"headers must not set {doubled[0]}: another option does")
        self._check_batch()
        return self

    def _check_credentials(self) -> None:
        given = [name for name in ("token_file", "basic", "oauth") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other: delete one")
        if (self.client_cert_file is None) != (self.client_key_file is None):
            names = ("client_cert_file", "client_key_file")
            missing, present = names if self.client_cert_file is None else names[::-1]
            raise ValueError(f"{present} needs {missing}: write both, or delete {present}")
        if self.client_cert_file is not None and self.parts.scheme == "http":
            raise ValueError("client_cert_file needs a url that begins with https://: http has no certificates")
        if self.oauth is not None and split_url(self.oauth.token_url).scheme == "http" and not self.allow_http:
            raise ValueError("oauth.token_url must begin with https:// (allow_http = true would allow http)")

    def _check_batch(self) -> None:
        if self.batch is None:
            return
        if self.body is None:
            raise ValueError("batch needs body, the document sent for each card")
        if self.method == "GET":
            raise ValueError("batch needs a method with a body: write another one than GET")
        path, query = self.templates
        named = sorted((path.names | query.names) - (FACTS - _CARD_FACTS))
        if named:
            raise ValueError(f"url must not have {{{named[0]}}}: with batch, one request is about several cards")

    @property
    def templates(self) -> tuple[Template, Template]:
        """The template of the URL before the query, and the template of the query."""
        path, question, query = self.url.partition("?")
        return Template(path), Template(question + query)

    @property
    def parts(self) -> UrlParts:
        """The parts of the URL, with placeholders in its path and query replaced.

        Raises:
            ValueError: It is not a URL, or has a placeholder in its host.
        """
        authority = re.match(r"[^:/?#]*://[^/?#]*", self.url)
        if authority and "{" in authority.group():
            raise ValueError("url must not have a {column} in its host")
        try:
            return split_url(re.sub(r"\{[^{}]*\}", "x", self.url))
        except MalformedUrl as error:
            raise ValueError(f"url {error.rule}") from None


@lru_cache(maxsize=1024)  # asked several times a card
def matches(status: int, among: tuple[int | str, ...]) -> bool:
    """Return whether a status is in a list of statuses and classes."""
    return status in among or f"{status // 100}xx" in among
