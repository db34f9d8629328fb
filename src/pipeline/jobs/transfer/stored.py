"""Interprets an answer to a PUT, or to a HEAD after it: does it prove that the store has the body? Pure.

S3 documents the ETag of a PUT as the MD5 of the body, except with keys of KMS or of the customer. Other stores use
ETags of the same form for something else. So an ETag can prove that the body is stored, but never that it is not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Final

from pipeline.jobs.transfer.digests import MD5_ETAG, Digests

_GOOGLE_MD5: Final = re.compile(r"(?:^|,)\s*md5=([A-Za-z0-9+/=]{24})")
_CRC_BYTES: Final = 4
_ENCRYPTIONS: Final = ("server-side-encryption", "encryption-kms-key-name", "server-side-encryption-customer-algorithm")
"""Endings of the headers that name an encryption: in S3 (``x-amz-``), OSS, OBS, COS and Google's store."""
_OWN_KEYS: Final = frozenset({"", "aes256", "sm4"})
"""Encryption with the store's own keys (SSE-S3): the ETag is still an MD5."""


class Proof(Enum):
    """What an answer proves."""

    STORED = auto()
    """The store has these bytes, or gives no checksum to compare with."""
    OTHER = auto()
    """The store has other bytes."""
    UNKNOWN = auto()
    """The ETag looks like an MD5 but is not the MD5 of these bytes, and there is no other checksum."""


def proof_of_put(headers: Mapping[str, str], digests: Digests, *, etag_is_md5: bool) -> Proof:
    """Return what the answer to a PUT proves."""
    etag = headers.get("ETag", "")
    if digests.are_of(etag):
        return Proof.STORED
    stated = _stated(headers, digests)
    if stated is not None:
        return stated
    return (
        Proof.STORED if not MD5_ETAG.fullmatch(etag) or not etag_is_md5 or _has_foreign_key(headers) else Proof.UNKNOWN
    )


def proof_of_head(headers: Mapping[str, str], digests: Digests, etag: str) -> Proof:
    """Return what the answer to a HEAD after a PUT with this ETag proves, by checksum or else by size."""
    if headers.get("ETag", etag) != etag:
        return Proof.UNKNOWN
    stated = _stated(headers, digests)
    if stated is not None:
        return stated
    length = headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()):
        return Proof.UNKNOWN
    return Proof.STORED if int(length) == digests.size else Proof.OTHER


def _stated(headers: Mapping[str, str], digests: Digests) -> Proof | None:
    """Return what the checksums in other headers prove; None if there is no known one."""
    right = [crc == digests.crc32 for crc in (stated_crc(headers),) if crc is not None]
    right += [md5 == digests.md5 for md5 in _stated_md5s(headers)]
    if not right:
        return None
    return Proof.STORED if all(right) else Proof.OTHER


def _stated_md5s(headers: Mapping[str, str]) -> Iterator[bytes]:
    google = _GOOGLE_MD5.search(headers.get("x-goog-hash", ""))
    for text in (headers.get("Content-MD5", ""), google[1] if google else ""):
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        if len(raw) == hashlib.md5(usedforsecurity=False).digest_size:
            yield raw


def stated_crc(headers: Mapping[str, str]) -> int | None:
    """Return the CRC32 that an answer states for the whole object; None for a composite of parts' checksums."""
    if headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
        return None
    try:
        # a composite value ends in -<number of parts>, which is not base64
        raw = base64.b64decode(headers.get("x-amz-checksum-crc32", ""), validate=True)
    except binascii.Error:
        return None
    return int.from_bytes(raw, "big") if len(raw) == _CRC_BYTES else None


def _has_foreign_key(headers: Mapping[str, str]) -> bool:
    """Return whether the store encrypts with a key of KMS or of the customer: then its ETag is not an MD5."""
    named = {name.lower(): value.lower() for name, value in headers.items()}
    if any(name.endswith(_ENCRYPTIONS[1:]) for name in named):
        return True
    return any(name.endswith(_ENCRYPTIONS[0]) and value not in _OWN_KEYS for name, value in named.items())
