"""What an answer of the token server means. Pure.

eCard Systems answers with a JSON:API document, ``data.attributes.{access_token, token_type, expires_in}``, not with
RFC 6749's flat one.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from pipeline.jobs.ecs.errors import TokenUnavailable
from pipeline.jobs.ecs.jwt_expiry import read_expiry
from pipeline.jobs.ecs.protocols import Token
from pipeline.secret_files import token_fault

_LONGEST_LIFE: Final = 10 * 365 * 86_400


class _Attributes(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True, frozen=True)

    access_token: SecretStr
    token_type: str = Field(default="Bearer", pattern=r"(?i)^bearer$")
    expires_in: float | None = Field(default=None, gt=0, le=_LONGEST_LIFE)


class _Data(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True, frozen=True)

    attributes: _Attributes


class _Document(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True, frozen=True)

    data: _Data


def token_request(*, client_id: str, client_secret: SecretStr, scope: str | None) -> bytes:
    """Return the body that asks for a token: JSON, where RFC 6749 would have a form."""
    fields: dict[str, Any] = {
        "client_id": client_id,
        "client_secret": client_secret.get_secret_value(),
        "grant_type": "client_credentials",
    }
    if scope is not None:
        fields["scope"] = scope
    return json.dumps(fields).encode()


def read_token(body: bytes, *, now: datetime) -> Token:
    """Return the token of a 2xx answer; where it has no ``expires_in``, the token's own ``exp`` counts, if any.

    Raises:
        TokenUnavailable: The answer is no such document; the message names the fields, never a value.
    """
    try:
        attributes = _Document.model_validate_json(body).data.attributes
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, row["loc"])) or "document" for row in error.errors()}))
        raise TokenUnavailable("callback_token_malformed", f"the token answer is not as documented: {where}") from None
    value = attributes.access_token
    fault = token_fault(value)
    if fault is not None:
        raise TokenUnavailable("callback_token_malformed", f"the access token {fault}")
    if attributes.expires_in is None:
        return Token(value, read_expiry(value.get_secret_value()))
    return Token(value, now + timedelta(seconds=attributes.expires_in))
