"""Keys mean the same in a folder, in S3 and in a log line."""

from __future__ import annotations

import pytest

from pipeline.storage.protocols import MAX_KEY_CHARS, check_key, check_prefix


@pytest.mark.parametrize("key", ["a", "a/b", "jobs/acme/cffde776-1d2a/0001.json", "a=1,b+c@d:e~f_g", "x" * 255])
def test_good_keys_pass(key: str) -> None:
    assert check_key(key) == key
    assert check_prefix(key + "/") == key + "/"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "a/./b",
        ".a",
        "a b",
        "a\n",
        "a\0",
        "ö",
        "a%2e",
        "a\\b",
        "x" * 256,
    ],
)
def test_bad_keys_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not a store key"):
        check_key(key)


def test_long_keys_and_bad_prefixes_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a store key"):
        check_key("/".join(["x" * 99] * (MAX_KEY_CHARS // 100 + 1)))
    for prefix in ("/", "../", "a//", ".x", "x" * (MAX_KEY_CHARS + 1)):
        with pytest.raises(ValueError, match="not a prefix"):
            check_prefix(prefix)
