"""What can go wrong between here and an object store, sorted by what the runner does about it."""

from __future__ import annotations

from pipeline.errors import PermanentError, TransientError


class SourceChanged(TransientError):
    """The input object is not the one that the work began with: start over at its first byte."""


class SourceRefused(PermanentError):
    """The input file cannot be had, or is broken, for good."""


class UploadRefused(PermanentError):
    """The result file cannot be put, for good."""
