"""The audit log: hash-chained segments and their verifier (docs/audit.md)."""

from pipeline.audit.chain import Appended, Chain, Writing
from pipeline.audit.damage import DamageKind
from pipeline.audit.heads import Head, dump_heads, load_heads, read_heads
from pipeline.audit.segments import MAX_EVENT_BYTES, Entry
from pipeline.audit.settings import AuditSettings
from pipeline.audit.signing import PublicKeys, Signer, load_public_keys
from pipeline.audit.verify import Report, verify

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
    "verify",
]
