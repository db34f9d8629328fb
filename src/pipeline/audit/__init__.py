"""The audit log: hash-chained segments and their verifier (docs/audit.md)."""

from pipeline.audit.chain import Appended, Chain, Writing
from pipeline.audit.reading import DamageKind
from pipeline.audit.segments import MAX_EVENT_BYTES, Entry, PublicKeys, Signer, load_public_keys
from pipeline.audit.settings import AuditSettings
from pipeline.audit.verify import Head, Report, dump_heads, load_heads, read_heads, verify

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
