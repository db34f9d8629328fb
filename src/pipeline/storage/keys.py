"""Which keys are allowed: those that mean the same to a folder, to S3, and in a log line."""

from __future__ import annotations

import re
from typing import Final

MAX_KEY_CHARS: Final = 900
"""S3 allows 1,024 bytes including the configured prefix; a folder allows 255 per segment."""

_NAME: Final = r"[A-Za-z0-9_=+@,:~-][A-Za-z0-9_=+@,:~.-]{0,254}"
_KEY: Final = re.compile(rf"(?:{_NAME}/)*{_NAME}")
_PREFIX: Final = re.compile(rf"(?:{_NAME}/)*(?:{_NAME})?")


def check_key(key: str) -> str:
    """Return the key, or raise ValueError: a wrong key is a mistake in the calling code, never one of the data.

    Segments are separated by single slashes, hold ASCII letters, digits and ``_ = + @ , : ~ . -``, and do not begin
    with a dot: that rules out ``..``, absolute paths, and the store's own working files.
    """
    if len(key) > MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no store key: see pipeline.storage.keys for the characters that are allowed")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing (empty, cut anywhere in a key), or raise ValueError."""
    if len(prefix) > MAX_KEY_CHARS or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no prefix of a store key")
    return prefix
