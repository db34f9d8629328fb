"""Which combinations of settings are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.jobs.ecs import CallbackSettings, OAuthSettings

OAUTH = {"token_url": "https://api.example.com/auth/token", "client_id": "c", "client_secret": "planted-secret"}


def test_a_token_file_is_enough() -> None:
    """Everything else has a default."""
    assert CallbackSettings(token_file=Path("t")).oauth is None


def test_oauth_is_the_other_way() -> None:
    """With the secret as a value or in a file; it does not show."""
    settings = CallbackSettings(oauth=OAuthSettings.model_validate(OAUTH))
    assert "planted" not in repr(settings)
    with_file = {**OAUTH, "client_secret": None, "client_secret_file": "f"}
    assert CallbackSettings.model_validate({"oauth": with_file}).oauth is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "exactly one of token_file and oauth"),
        ({"token_file": "t", "oauth": OAUTH}, "exactly one of token_file and oauth"),
        ({"oauth": {**OAUTH, "client_secret_file": "f"}}, "exactly one of client_secret and client_secret_file"),
        ({"oauth": {**OAUTH, "client_secret": None}}, "exactly one of client_secret and client_secret_file"),
        ({"oauth": {**OAUTH, "token_url": "api.example.com/planted"}}, "must be an absolute URL"),
        ({"token_file": "t", "timeout_seconds": 601}, "less than or equal to 600"),
        ({"token_file": "t", "retry": {"first_seconds": 901}}, "first_seconds must not exceed max_seconds"),
        ({"token_file": "t", "token": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_refused_combinations(data: dict[str, Any], message: str) -> None:
    """The refusal says what to write, and no secret."""
    with pytest.raises(ValidationError, match=message) as caught:
        CallbackSettings.model_validate(data)
    assert "planted" not in str(caught.value)
