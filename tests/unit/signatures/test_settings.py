from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from pipeline.signatures import (
    HmacSettings,
    SchemeSettings,
    Secret,
    SecretSettings,
    SharedSecretSettings,
    StandardWebhooksSettings,
)

ADAPTER: TypeAdapter[SharedSecretSettings | HmacSettings | StandardWebhooksSettings] = TypeAdapter(SchemeSettings)
SECRETS = [{"file": "secrets/one"}]


def test_scheme_tells_the_settings_apart() -> None:
    """Scheme tells the settings apart."""
    assert isinstance(ADAPTER.validate_python({"scheme": "hmac", "secrets": SECRETS}), HmacSettings)
    assert isinstance(ADAPTER.validate_python({"scheme": "shared-secret", "secrets": SECRETS}), SharedSecretSettings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scheme": "md5", "secrets": SECRETS}, "shared-secret"),
        ({"scheme": "hmac"}, "Field required"),
        ({"scheme": "hmac", "secrets": []}, "at least 1"),
        ({"scheme": "hmac", "secrets": SECRETS, "haeder": "X"}, "Extra inputs"),
        ({"scheme": "hmac", "secrets": SECRETS, "header": "X Sig"}, "pattern"),
        ({"scheme": "hmac", "secrets": SECRETS, "header": "Content-Type"}, "content-type cannot hold"),
        ({"scheme": "hmac", "secrets": SECRETS, "signed": ["timestamp", "body"]}, "say where it stands"),
        ({"scheme": "hmac", "secrets": SECRETS, "timestamp": "header:X-T"}, "proves nothing"),
        (
            {
                "scheme": "hmac",
                "secrets": SECRETS,
                "signed": ["timestamp", "body"],
                "header": "X-T",
                "timestamp": "header:x-t",
            },
            "must differ",
        ),
        ({"scheme": "hmac", "secrets": [*SECRETS, {"file": "other/one"}]}, "same name"),
        ({"scheme": "hmac", "secrets": [{"file": "a", "not_before": "2026-01-01T00:00:00"}]}, "timezone"),
        (
            {
                "scheme": "hmac",
                "secrets": [{"file": "a", "not_before": "2026-01-02T00:00:00Z", "not_after": "2026-01-01T00:00:00Z"}],
            },
            "earlier",
        ),
    ],
)
def test_refused_settings_say_why(settings: dict[str, Any], said: str) -> None:
    """Refused settings say why."""
    with pytest.raises(ValidationError, match=said):
        ADAPTER.validate_python(settings)


def test_secret_is_named_by_its_id_or_its_file() -> None:
    """Secret is named by its id or its file."""
    assert SecretSettings.model_validate({"file": "secrets/acme-2026"}).name == "acme-2026"
    assert SecretSettings.model_validate({"file": "secrets/acme-2026", "id": "new"}).name == "new"


def test_empty_secret_is_refused() -> None:
    """Empty secret is refused."""
    with pytest.raises(ValueError, match="'old' is empty"):
        Secret("old", SecretStr(""))
