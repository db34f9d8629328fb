"""Ed25519 signatures of closing hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from pipeline.errors import FatalError

_PURPOSE: Final = b"card-pipeline audit segment 1\n"
"""Put before what is signed, so that a signature made for something else never fits."""

PublicKeys = Mapping[str, Ed25519PublicKey]
"""Public keys by key id."""


class Signer:
    """Signs with one private key.

    Attributes:
        key_id: First 16 hex digits of the SHA-256 of the raw public key.
    """

    def __init__(self, pem: bytes) -> None:
        """Load the key.

        Raises:
            FatalError: It is no Ed25519 private key in PEM, or is encrypted (``audit_key_invalid``).
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _invalid("private") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _invalid("private")
        self._key = key
        self.key_id = _id_of(key.public_key())

    def sign(self, digest: str) -> str:
        """Return the signature of a hash, as 128 hex digits."""
        return self._key.sign(_PURPOSE + digest.encode()).hex()


def load_public_keys(pems: Iterable[bytes]) -> PublicKeys:
    """Return the keys by id; several where the signing key was changed.

    Raises:
        FatalError: One is no Ed25519 public key in PEM (``audit_key_invalid``).
    """
    found: dict[str, Ed25519PublicKey] = {}
    for pem in pems:
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _invalid("public") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _invalid("public")
        found[_id_of(key)] = key
    return found


def is_signed(digest: str, signature: str, key: Ed25519PublicKey) -> bool:
    """Whether the signature (hex digits) was made over this hash with the key's private half."""
    try:
        key.verify(bytes.fromhex(signature), _PURPOSE + digest.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _id_of(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _invalid(half: str) -> FatalError:
    return FatalError(
        "audit_key_invalid",
        f"The audit log's {half} key must be Ed25519, PEM, not encrypted: openssl genpkey -algorithm ed25519 makes one",
    )
