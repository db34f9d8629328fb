"""Why a request was not taken for authentic."""

from __future__ import annotations

from enum import StrEnum

from pipeline.errors import PermanentError


class Fault(StrEnum):
    """The coarse class of a refusal: all that the caller may learn, since more would help whoever guesses."""

    SENDER = "sender"
    """Nothing shows that the request is authentic: 401, whatever the reason."""
    CONFIGURATION = "configuration"
    """No secret counts at this time, or none can: our own fault, which must never cost the sender its event."""


class Reason(StrEnum):
    """The exact reason, for metrics and logs."""

    NO_ACTIVE_SECRET = "no_active_secret"  # noqa: S105 - a reason, no secret
    HEADER_MISSING = "header_missing"
    HEADER_REPEATED = "header_repeated"
    PREFIX_MISSING = "prefix_missing"
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_MALFORMED = "signature_malformed"
    ID_MALFORMED = "id_malformed"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_REPEATED = "timestamp_repeated"
    TIMESTAMP_MALFORMED = "timestamp_malformed"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    NOT_VERIFIED = "not_verified"
    UNSIGNED_PATH = "unsigned_path"
    """Its sender declares no signature here, and no configuration says what protects the path instead."""

    @property
    def fault(self) -> Fault:
        """Whose fault it is."""
        return Fault.CONFIGURATION if self in {Reason.NO_ACTIVE_SECRET, Reason.UNSIGNED_PATH} else Fault.SENDER


class SignatureRefused(PermanentError):
    """The request is not authentic, as far as we can tell. ``code`` is the reason.

    Attributes:
        reason: For metric and log, not for the caller.
        fault: What the caller may learn.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        """Say why; ``message`` names headers and limits, never what was received or expected."""
        super().__init__(reason.value, message)
        self.reason = reason
        self.fault = reason.fault
