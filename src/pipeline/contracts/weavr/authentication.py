"""Events of logins, step-up challenges and factors of authentication."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent
from pipeline.contracts.weavr.references import CredentialId, TypedId
from pipeline.contracts.weavr.wire import Id, Instant


class LoginEvent(WeavrEvent):
    """A login was verified, declined, or expired."""

    credential: CredentialId
    identity: TypedId | None = None
    type: str
    status: known.LoginEventLoginEventStatus
    published_timestamp: Instant


class StepupEvent(WeavrEvent):
    """A step-up challenge was verified, declined, or expired. Its token is a bearer secret."""

    credential: CredentialId
    identity: TypedId
    challenge_id: Id
    type: str
    status: known.StepupEventEventStatus
    published_timestamp: Instant
    auth_token: str | None = None


class EnrolmentEvent(WeavrEvent):
    """A factor of authentication was enrolled, or is no longer active."""

    credential_id: CredentialId
    type: str
    status: known.EnrolmentEventEnrolmentStatus
    published_timestamp: Instant
