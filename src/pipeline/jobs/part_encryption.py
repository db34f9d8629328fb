"""Encrypts parts at rest with AES-256-GCM, in segments, so that a reader holds only one segment in memory.

The data object of a part consists of ``CPP1``, a salt of 32 bytes, and the segments. A segment consists of 64 KiB of
the result (the last one may have less) and a tag of 16 bytes. Each part has its own key, derived from the configured
key and the salt (HKDF-SHA-256), so the number of a segment can serve as its nonce. A tag covers the segment's bytes,
its number, whether it is the last one, and the name of the object, which contains job, attempt, generation and chunk.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict

from pipeline.errors import FatalError, Untried
from pipeline.jobs.settings import PartKeySettings, PartSettings
from pipeline.secret_files import SecretUnreadable, read_secret

SEALED_ENDING: Final = ".aes"
"""Ending of the names of encrypted parts."""

KEY_BYTES: Final = 32
SEGMENT_BYTES: Final = 1 << 16

_MAGIC: Final = b"CPP1"
_SALT_BYTES: Final = 32
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = len(_MAGIC) + _SALT_BYTES
_SEALED_BYTES: Final = SEGMENT_BYTES + _TAG_BYTES
_NONCE_BYTES: Final = 12
_DERIVES_KEY: Final = b"card-pipeline part"
_DERIVES_CHECK: Final = b"card-pipeline part key check"
_CHECK_BYTES: Final = 8


class Sealed(BaseModel):
    """Which key encrypted a part; stored in the manifest.

    Attributes:
        key: Id of the key.
        check: Sixteen hex digits that show whether the id now belongs to another key. They reveal nothing about the
            key.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    key: str
    check: str


class PartKeyUnavailable(Untried):
    """The key of a part is missing, or its id now belongs to another key.

    The job waits until an operator restores it.
    """


class PartChanged(Exception):
    """The bytes of a part differ from those that were written. The job store reports it as damage."""


@dataclass(frozen=True, slots=True, repr=False)
class PartKey:
    """One configured key."""

    id: str
    value: bytes

    @property
    def sealed(self) -> Sealed:
        """The description of the key for a manifest."""
        return Sealed(key=self.id, check=_derived(self.value, b"", _DERIVES_CHECK, _CHECK_BYTES).hex())


class PartCipher:
    """Encrypts parts with the first of its keys, and decrypts parts with any of them.

    Args:
        keys: The one that encrypts comes first.
        encrypts: Whether to encrypt new parts. Encrypted parts are decrypted in any case.
    """

    def __init__(self, keys: Sequence[PartKey] = (), *, encrypts: bool = True) -> None:
        self._first = keys[0] if keys else None
        self._by_id = {key.id: (key, key.sealed.check) for key in keys}
        self.encrypts = encrypts

    def seal(self, name: str, data: bytes) -> tuple[bytes, Sealed]:
        """Return the encrypted bytes of a part, and which key encrypted it.

        Args:
            name: Key of the object. Under another name the bytes cannot be decrypted.
            data: The bytes in clear.

        Raises:
            FatalError: No key is configured.
        """
        if self._first is None:
            raise no_keys()
        salt = secrets.token_bytes(_SALT_BYTES)
        aead = AESGCM(_derived(self._first.value, salt, _DERIVES_KEY, KEY_BYTES))
        view, count = memoryview(data), _segments(len(data))
        pieces = [_MAGIC, salt]
        for number in range(count):
            plain = view[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES]
            pieces.append(aead.encrypt(_nonce(number), plain, _bound(name, number, last=number == count - 1)))
        return b"".join(pieces), self._first.sealed

    def require(self, needed: Iterable[Sealed | None]) -> None:
        """Check that every part can be decrypted; None is a part in clear.

        Raises:
            PartKeyUnavailable: A key is not configured, or was replaced under the same id. The message names the id.
        """
        for sealed in needed:
            if sealed is not None:
                self._key(sealed)

    def unsealed(self, name: str, sealed: Sealed) -> Unsealing:
        """Return the decryption of one part. It raises the errors of :meth:`require`."""
        return Unsealing(name, self._key(sealed).value)

    def _key(self, sealed: Sealed) -> PartKey:
        key, check = self._by_id.get(sealed.key, (None, ""))
        if key is None:
            raise PartKeyUnavailable(
                "part_key_missing",
                f"Results of this job are encrypted with the key {sealed.key!r}, which parts.keys does not name. Add "
                "it after the first key, and restart; the job then continues without a command.",
            )
        if check != sealed.check:
            raise PartKeyUnavailable(
                "part_key_differs",
                f"Results of this job are encrypted with the key {sealed.key!r}, but its file now holds another key. "
                "Put the former key back, give the new one an id of its own, and restart; the job then continues "
                "without a command.",
            )
        return key


class Unsealing:
    """Decrypts one part piece by piece. It holds one segment and the current piece in memory."""

    def __init__(self, name: str, key: bytes) -> None:
        self._name = name
        self._key = key
        self._aead: AESGCM | None = None
        self._number = 0
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the bytes of the complete segments, except for the last one so far.

        Raises:
            PartChanged: The bytes are not those that were written.
        """
        self._rest += piece
        if self._aead is None and len(self._rest) >= _HEAD_BYTES:
            if not self._rest.startswith(_MAGIC):
                raise PartChanged
            self._aead = AESGCM(_derived(self._key, self._rest[len(_MAGIC) : _HEAD_BYTES], _DERIVES_KEY, KEY_BYTES))
            self._rest = self._rest[_HEAD_BYTES:]
        while self._aead is not None and len(self._rest) > _SEALED_BYTES:
            yield self._open(self._aead, self._rest[:_SEALED_BYTES], last=False)
            self._rest = self._rest[_SEALED_BYTES:]

    def finish(self) -> bytes:
        """Return the bytes of the last segment. It raises the errors of :meth:`feed`."""
        if self._aead is None:
            raise PartChanged
        return self._open(self._aead, self._rest, last=True)

    def _open(self, aead: AESGCM, segment: bytes, *, last: bool) -> bytes:
        number, self._number = self._number, self._number + 1
        try:
            return aead.decrypt(_nonce(number), segment, _bound(self._name, number, last=last))
        except InvalidTag:
            raise PartChanged from None


def open_part_cipher(settings: PartSettings) -> PartCipher:
    """Return the cipher with the keys of the settings, read from their files.

    Raises:
        FatalError: Encryption is on but no key is configured, or a file holds no key.
    """
    encrypts = settings.encryption != "off"
    if encrypts and not settings.keys:
        raise no_keys()
    return PartCipher([read_part_key(one) for one in settings.keys], encrypts=encrypts)


def read_part_key(settings: PartKeySettings) -> PartKey:
    """Return a key from its file.

    Raises:
        SecretUnreadable: The file cannot be read, or does not hold 32 bytes in base64.
    """
    try:
        return PartKey(settings.id, _key_in(settings.file))
    except SecretUnreadable as error:
        error.message = f"parts.keys, key {settings.id!r}: {error.message}"
        raise


def new_part_key() -> str:
    """Return a new key in the form of a key file."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def no_keys() -> FatalError:
    """Return the error of a worker that has no key and must not store parts in clear."""
    return FatalError(
        "part_keys_missing",
        "parts.keys: names no key, and parts hold card data; make one with openssl rand -base64 32 and write "
        'keys = [{ id = "1", file = "secrets/part-key" }] under [parts]. Or write encryption = "off" there to store '
        "parts in clear.",
    )


def _key_in(file: Path) -> bytes:
    value = _decoded(read_secret(file).get_secret_value())
    if len(value) != KEY_BYTES:
        rule = f"must hold {KEY_BYTES} random bytes in base64 (44 characters); write it with: openssl rand -base64 32"
        raise SecretUnreadable(file, rule)
    return value


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _segments(size: int) -> int:
    return max(1, -(-size // SEGMENT_BYTES))


def _derived(key: bytes, salt: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=purpose).derive(key)


def _nonce(number: int) -> bytes:
    return number.to_bytes(_NONCE_BYTES, "big")


def _bound(name: str, number: int, *, last: bool) -> bytes:
    """Return the data that a segment's tag covers in addition to its bytes."""
    return b"\0".join((name.encode(), str(number).encode(), b"last" if last else b"more"))
