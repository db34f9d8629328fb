"""Settings of the store: what is refused, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.storage import LocalSettings, LocalStore, S3Settings, S3Store, StoreSettings, open_store

SETTINGS: TypeAdapter[LocalSettings | S3Settings] = TypeAdapter(StoreSettings)
S3: dict[str, Any] = {"kind": "s3", "bucket": "cards"}
KEYS = {"access_key_id": "AKIA-not-shown", "secret_access_key": "hush-not-shown"}


def test_the_kind_decides() -> None:
    assert SETTINGS.validate_python({"kind": "local", "path": "/x"}) == LocalSettings(path=Path("/x"))
    assert isinstance(SETTINGS.validate_python(S3), S3Settings)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "gcs"}, "'local', 's3'"),
        ({"kind": "local", "bucket": "x"}, "bucket"),
        ({"kind": "s3"}, "bucket"),
        ({**S3, "bucket": "No_Such"}, "bucket"),
        ({**S3, "prefix": "/a"}, "prefix"),
        ({**S3, "prefix": "../a"}, "prefix"),
        ({**S3, "access_key_id": "x"}, "give both, or neither"),
        ({**S3, "session_token": "x"}, "belongs to access_key_id"),
        ({**S3, "endpoint": "http://s3.example"}, "allow_http = true"),
        ({**S3, "endpoint": "s3.example"}, "endpoint"),
        ({**S3, "endpoint": "https://user@s3.example"}, "endpoint"),
        ({**S3, "request_timeout_seconds": 0}, "request_timeout_seconds"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SETTINGS.validate_python(given)


async def test_keys_are_never_shown() -> None:
    settings = S3Settings(**S3, **KEYS, session_token="token-not-shown")
    store = S3Store(settings)
    shown = f"{settings!r}{settings}{settings.model_dump_json()}{store!r}"
    assert "not-shown" not in shown
    assert "s3://cards/" in shown
    with pytest.raises(ValidationError) as caught:
        S3Settings(**S3, **KEYS, endpoint="nonsense")
    assert "not-shown" not in str(caught.value)
    await store.close()


async def test_a_store_is_opened_by_its_settings(tmp_path: Path) -> None:
    assert isinstance(open_store(LocalSettings(path=tmp_path)), LocalStore)
    store = open_store(S3Settings(**S3, prefix="a/b", proxy="http://proxy.example:3128"))
    assert isinstance(store, S3Store)
    await store.close()
