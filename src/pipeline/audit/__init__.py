"""The audit log: hash-chained segments and their verifier (docs/explanation/audit-log.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.audit.settings import AuditSettings
from pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.audit.chain import Appended, Chain, Writing
    from pipeline.audit.reading import DamageKind
    from pipeline.audit.segments import MAX_EVENT_BYTES, Entry, PublicKeys, Signer, load_public_keys
    from pipeline.audit.verify import Head, Report, dump_heads, load_heads, read_heads
else:
    __getattr__ = on_demand(
        __name__,
        chain="Appended Chain Writing",
        reading="DamageKind",
        segments="MAX_EVENT_BYTES Entry PublicKeys Signer load_public_keys",
        verify="Head Report dump_heads load_heads read_heads",
    )

__all__ = [
    "MAX_EVENT_BYTES",
    "Appended",
    "AuditSettings",
    "Chain",
    "DamageKind",
    "Entry",
    "Head",
    "PublicKeys",
    "Report",
    "Signer",
    "Writing",
    "dump_heads",
    "load_heads",
    "load_public_keys",
    "read_heads",
]
