"""Why a request fails verification."""

from __future__ import annotations

from enum import StrEnum

from pipeline.errors import PermanentError


class Fault(StrEnum):
    """Who has to fix the cause of a refusal. The caller learns no more: details would help an attacker."""

    SENDER = "sender"
    """Nothing shows that the request is authentic: 401, whatever the reason."""
    CONFIGURATION = "configuration"
    """No secret is active, or the sender signs nothing. Only we can fix it, and the sender must not lose its event."""


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
    BODY_ENCODING = "body_encoding"
    """The signature covers the decoded body, but the body cannot be decoded: its encoding is unknown or broken."""
    URL_CHECK_TOKEN = "url_check_token"  # noqa: S105 - a reason, no secret
    """A URL check has a token that differs from the configured one."""
    NOT_VERIFIED = "not_verified"
    UNSIGNED_PATH = "unsigned_path"
    """The sender does not sign this path, and the configuration does not say what protects it instead."""

    @property
    def fault(self) -> Fault:
        """Who has to fix the cause."""
        return Fault.CONFIGURATION if self in {Reason.NO_ACTIVE_SECRET, Reason.UNSIGNED_PATH} else Fault.SENDER


class SignatureRefused(PermanentError):
    """The request could not be verified. ``code`` is the reason.

    Attributes:
        reason: The exact reason, for metrics and logs only. Never tell the caller.
        fault: Who has to fix the cause. The caller may learn this.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        """Take the reason and a message that names headers and limits, never received or expected values."""
        super().__init__(reason.value, message)
        self.reason = reason
        self.fault = reason.fault
