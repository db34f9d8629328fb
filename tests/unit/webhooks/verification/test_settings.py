from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from pipeline.webhooks.verification import (
    HmacSettings,
    SchemeSettings,
    Secret,
    SecretSettings,
    SharedSecretSettings,
    StandardWebhooksSettings,
)

ADAPTER: TypeAdapter[SharedSecretSettings | HmacSettings | StandardWebhooksSettings] = TypeAdapter(SchemeSettings)
SECRETS = [{"file": "secrets/one"}]


def test_scheme_decides_which_settings_apply() -> None:
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
        ({"scheme": "hmac", "secrets": SECRETS, "signed": ["timestamp", "body"]}, "say which value it is"),
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
    with pytest.raises(ValidationError, match=said):
        ADAPTER.validate_python(settings)


HMAC = {"scheme": "hmac", "secrets": SECRETS}
STANDARD = {"scheme": "standard-webhooks"}
TIMED = {"signed": ["timestamp", "body"], "timestamp": "header:X-Time"}
PUBLIC = {"id": "one", "value": "whpk_SlsH9okXohDb1TVrBAmYNIcHTiZiGMaqqIV/yTbYeLw="}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"signed": []}, "at least 1"),
        ({"signed": ["Body"]}, "names nothing that can be signed"),
        ({"signed": ["header", "body"]}, "names nothing that can be signed"),
        ({"signed": ["header:X Y", "body"]}, "names nothing that can be signed"),
        ({"signed": ["header:X_Y", "body"]}, "names nothing that can be signed"),
        ({"signed": ["text:", "body"]}, "names nothing that can be signed"),
        ({"signed": ["header:X-Id"]}, "signed must name 'body'"),
        ({"body_unsigned": True}, "leave body_unsigned out"),
        ({"signed": ["timestamp"], "timestamp": "header:X-Time"}, "proves nothing about the body"),
        ({"timestamp": "X-Time"}, "names no value"),
        ({"timestamp": "header:X Time"}, "names no value"),
        ({"timestamp": "json:time"}, "names no value"),
        ({"timestamp": "json:"}, "names no value"),
        ({"timestamp": "json:/a~2"}, "names no value"),
        ({"timestamp": "header:X-Time"}, "an unsigned timestamp proves nothing"),
        ({"timestamp": "field", "fields": {"signature": "v1", "timestamp": "t"}}, "an unsigned timestamp"),
        ({**TIMED, "timestamp": "json:/at"}, "take 'timestamp' out of signed"),
        ({"timestamp": "json:/at", "signed": ["header:X-Id"], "body_unsigned": True}, "unsigned body proves nothing"),
        ({**TIMED, "timestamp": "field"}, "belong together"),
        ({**TIMED, "fields": {"signature": "v1", "timestamp": "t"}}, "belong together"),
        ({**TIMED, "timestamp": "field", "fields": {"signature": "t", "timestamp": "t"}}, "must differ"),
        ({"fields": {"signature": "v 1"}}, "pattern"),
        ({"fields": {"signature": "v1", "separator": "."}}, "','"),
        ({"signed": ["header:x-webhook-signature", "body"]}, "must differ"),
        ({"signed": ["header:X-Id", "header?:x-id", "body"]}, "must differ"),
        ({**TIMED, "timestamp": "header:Host"}, "host cannot hold"),
        ({"signed": ["header:Content-Type", "body"]}, "content-type cannot hold"),
        ({"tolerance_seconds": 0}, "greater than 0"),
        ({"timestamp_unit": "us"}, "iso8601"),
        ({"encoding": "base64url"}, "base64"),
        ({"over": "body"}, "Extra inputs"),
        ({"separator": "."}, "Extra inputs"),
        ({"timestamp_header": "X-Time"}, "Extra inputs"),
    ],
)
def test_refused_settings_of_an_hmac_say_why(settings: dict[str, Any], said: str) -> None:
    """Refused settings of an HMAC say why: what is not signed proves nothing."""
    with pytest.raises(ValidationError, match=said):
        ADAPTER.validate_python({**HMAC, **settings})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "at least one of secrets"),
        ({"secrets": [], "public_keys": []}, "at least one of secrets"),
        ({"public_keys": [{**PUBLIC, "value": "whpk_AAAA"}]}, "this is no public key"),
        ({"public_keys": [{**PUBLIC, "value": PUBLIC["value"][5:]}]}, "this is no public key"),
        ({"public_keys": [{**PUBLIC, "value": f"{PUBLIC['value'][:-2]}x="}]}, "this is no public key"),
        ({"public_keys": [{"value": PUBLIC["value"]}]}, "Field required"),
        ({"public_keys": [{**PUBLIC, "not_before": "2026-01-01T00:00:00"}]}, "timezone"),
        (
            {"public_keys": [{**PUBLIC, "not_before": "2026-01-02T00:00:00Z", "not_after": "2026-01-01T00:00:00Z"}]},
            "earlier",
        ),
        ({"secrets": SECRETS, "public_keys": [PUBLIC]}, "same name"),
        ({"secrets": SECRETS, "header": "X"}, "Extra inputs"),
    ],
)
def test_refused_settings_of_standard_webhooks_say_why(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ADAPTER.validate_python({**STANDARD, **settings})


def test_secrets_and_public_keys_may_stand_alone_or_together() -> None:
    alone = ADAPTER.validate_python({**STANDARD, "public_keys": [PUBLIC]})
    both = ADAPTER.validate_python({**STANDARD, "secrets": [{"file": "a"}], "public_keys": [PUBLIC]})
    assert [len(one.secrets) for one in (alone, both)] == [0, 1]


def test_secret_is_named_by_its_id_or_its_file() -> None:
    assert SecretSettings.model_validate({"file": "secrets/acme-2026"}).name == "acme-2026"
    assert SecretSettings.model_validate({"file": "secrets/acme-2026", "id": "new"}).name == "new"


def test_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="'old' is empty"):
        Secret("old", SecretStr(""))
