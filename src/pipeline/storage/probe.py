"""Proving that a storage keeps the one promise on which everything rests: an object is created once."""

from __future__ import annotations

import secrets

from pipeline.errors import FatalError
from pipeline.storage.errors import StoreUnavailable
from pipeline.storage.protocols import ObjectStore


async def probe(store: ObjectStore) -> None:
    """Create an object twice, with different bytes, and look at it; leaves nothing behind.

    Raises:
        StoreUnavailable: Something could not be done at all.
        FatalError: The second creation succeeded (``store_without_create``): the server ignores ``If-None-Match``.
    """
    key = f"check/{secrets.token_hex(16)}"
    try:
        first = await store.create(key, b"first")
        second = await store.create(key, b"second")
        found = await store.get(key, start=1, end=4)
        listed = [info.key async for info in store.list(key)]
    finally:
        await store.delete(key)
    if second or found != b"irs":
        raise FatalError(
            "store_without_create",
            "The storage let a second creation of an object through: two workers could decide one job. Use a server "
            "that honours If-None-Match: * on PUT, or a file system with hard links",
        )
    if not first or listed != [key]:
        raise StoreUnavailable(
            "The storage does not show an object that was just created: it must be strongly consistent"
        )
