"""The audit log: hash-chained segments and their verifier."""

from pipeline.audit.records import record_of

__all__ = ["record_of"]
