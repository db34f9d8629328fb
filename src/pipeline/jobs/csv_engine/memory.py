"""Memory of the engine's workers."""

from __future__ import annotations

import pyarrow as pa


def settle_memory() -> None:
    """Let Arrow take its memory from the system's allocator; call it once in a process that processes cards.

    Arrow's default (mimalloc) keeps what each thread freed: about 100 MB more here, growing with the size of the file,
    at the same speed.
    """
    pa.set_memory_pool(pa.system_memory_pool())
