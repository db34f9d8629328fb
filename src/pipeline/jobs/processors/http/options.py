"""How the card service is asked, and what its answers mean."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from pipeline.contracts.json_pointer import Pointer
from pipeline.jobs.processors.http.template import BodyTemplate, Template
from pipeline.outbound import MalformedUrl, UrlParts, split_url
from pipeline.secret_files import TokenPath
from pipeline.units import Bytes, Seconds

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

Status = Annotated[int, Field(ge=200, le=599)] | Annotated[str, Field(pattern=r"^[2-5]xx$")]
"""A status, or a class of statuses such as ``5xx``."""

HeaderName = Annotated[str, Field(pattern=rf"^{_HEADER_NAME.pattern}$")]


class HttpOptions(BaseModel):
    """Options of the processor ``http``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        description="URL of a card; {column}, not allowed in the host, becomes the column's value, percent-encoded"
    )
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = Field(default="POST", description="HTTP method")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Header fields sent with every card; no secrets here, see token_file"
    )
    body: dict[str, JsonValue] | list[JsonValue] | None = Field(
        default=None,
        description="JSON document sent with each card, a table or text; {column} in its strings is a column's value",
    )
    token_file: TokenPath | None = Field(
        default=None, description="File with the service's token; read again when it changes"
    )
    token_header: HeaderName = Field(default="Authorization", description="Header field that carries the token")
    token_prefix: str = Field(default="Bearer ", description="Text in front of the token in its header field")
    idempotency_header: HeaderName | Literal[""] = Field(
        default="Idempotency-Key",
        description='Header field with the card\'s idempotency key, the same in every try; leave it out with ""',
    )
    ok_statuses: tuple[Status, ...] = Field(default=("2xx",), description="Answers that mean: the card is ok")
    failed_statuses: tuple[Status, ...] = Field(
        default=(),
        description="Answers that mean: the card failed, checked first; an answer in no list means the same",
    )
    retry_statuses: tuple[Status, ...] = Field(
        default=(408, 425, 429, 500, 502, 503, 504), description="Answers that mean: try this card again"
    )
    credentials_statuses: tuple[Status, ...] = Field(
        default=(401, 403, 407),
        description="Answers that mean: our token is not accepted; the job is retried later, no card fails",
    )
    result_columns: dict[str, Pointer] = Field(
        default_factory=dict,
        description='Result columns taken from the answer: name and JSON pointer, e.g. reference = "/data/id"',
    )
    timeout_seconds: Seconds = Field(default=30.0, gt=0, description="Time for one request in all, in seconds")
    max_answer_bytes: Bytes = Field(default=65_536, ge=0, description="An answer is read up to this many bytes")
    allow_http: bool = Field(
        default=False, description="Whether url may be http:// (cards and token then go unencrypted)"
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
            raise ValueError(f"no JSON document: {error}") from error

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
                raise ValueError(f"{name!r} is no header field that can be sent")
        return headers

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _ = self.templates  # a lone brace is refused here
        if self.parts.scheme == "http" and not self.allow_http:
            raise ValueError("url must begin with https:// (allow_http = true would allow http)")
        ours = {self.idempotency_header.lower()}
        if self.token_file is not None:
            ours.add(self.token_header.lower())
        doubled = [name for name in self.headers if name.lower() in ours]
        if doubled:
            raise ValueError(f"headers must not set {doubled[0]}: another option does")
        return self

    @property
    def templates(self) -> tuple[Template, Template]:
        """The templates of everything up to the path's end, and of the query."""
        path, question, query = self.url.partition("?")
        return Template(path), Template(question + query)

    @property
    def parts(self) -> UrlParts:
        """The URL taken apart, placeholders in its path and query left out.

        Raises:
            ValueError: It is no URL, or has a placeholder in its host.
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
