"""What the rest of the product knows about a scheme: it takes secrets and returns the id of the one that matches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from pipeline.contracts import Headers


def within(now: datetime, not_before: datetime | None, not_after: datetime | None) -> bool:
    """Return whether ``now`` (aware) is at or after ``not_before`` and before ``not_after``; None means no limit."""
    return (not_before is None or not_before <= now) and (not_after is None or now < not_after)


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of an integration and the period in which it is active. During a rotation several are active at once.

    Attributes:
        id: Its name in logs; never derived from its value.
        value: Not empty: everybody would know an empty secret.
        not_before: When it becomes active; None: it always was.
        not_after: When it stops being active; None: never.
    """

    id: str
    value: SecretStr
    not_before: datetime | None = None
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse an empty value."""
        if not self.value.get_secret_value():
            raise ValueError(f"The secret {self.id!r} is empty")

    def active(self, now: datetime) -> bool:
        """Return whether the secret is active now (aware datetime)."""
        return within(now, self.not_before, self.not_after)

    @property
    def key(self) -> bytes:
        """The value as bytes (UTF-8), for computing signatures only."""
        return self.value.get_secret_value().encode()


class Scheme(Protocol):
    """Decides whether a request comes from a sender that shares a secret with us. Pure."""

    @property
    def stored_headers(self) -> frozenset[str]:
        """Lower-case names of the headers to store with the body, so that a subscriber can verify it again.

        Empty where a header is the secret itself.
        """
        ...

    def check_head(self, headers: Headers, now: datetime) -> None:
        """Return if a body could still verify the request; otherwise raise what ``verify`` would raise for any body.

        The ingress asks before it reads the body, so that a request without any chance takes no place of another one.

        Args:
            headers: As received, with repetitions; names are compared without regard to case.
            now: Aware datetime; decides which secrets are active and how old a timestamp is.

        Raises:
            SignatureRefused: The headers alone decide: a secret in a header is wrong, no secret is active, a header is
                missing, repeated or malformed, or a timestamp in a header is too old or too far in the future.
        """
        ...

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """Return the id of the secret that verified the request.

        It tries every active secret in constant time, also after one matched, so the time taken reveals nothing.

        Args:
            headers: As received, with repetitions; names are compared without regard to case.
            body: The raw bytes, before any decoding.
            now: Aware datetime; decides which secrets are active and how old a timestamp is.

        Raises:
            SignatureRefused: Nothing verified the request; ``reason`` says why, ``fault`` who has to fix it.
        """
        ...
