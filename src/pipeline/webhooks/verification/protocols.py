"""The secret and the scheme, as the rest of the product knows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from pipeline.contracts import Headers


def within(now: datetime, not_before: datetime | None, not_after: datetime | None) -> bool:
    """Return whether ``now`` (aware) is in the period from ``not_before`` to before ``not_after``. None is no limit."""
    return (not_before is None or not_before <= now) and (not_after is None or now < not_after)


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of an integration and its active period. During a rotation, several secrets are active at once.

    Attributes:
        id: Its name in logs; never derived from its value.
        value: The secret itself. It is never empty, because everybody would know an empty secret.
        not_before: When it becomes active; None: it has always been active.
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

        The set is empty if the header is the secret itself.
        """
        ...

    def check_head(self, headers: Headers, now: datetime) -> None:
        """Raise what ``verify`` would raise for any body. Return if some body could verify the request.

        The ingress calls it before it reads the body, so that hopeless requests use no capacity.

        Args:
            headers: All headers as received, including repeated ones. Upper and lower case in names are equal.
            now: Aware datetime; decides which secrets are active and how old a timestamp is.

        Raises:
            SignatureRefused: The headers alone decide: a secret in a header is wrong, no secret is active, a header is
                missing, repeated or malformed, or a timestamp in a header is too old or too far in the future.
        """
        ...

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """Return the id of the secret that verified the request.

        It tries every active secret in constant time, even after one has matched, so the time taken reveals nothing.

        Args:
            headers: All headers as received, including repeated ones. Upper and lower case in names are equal.
            body: The raw bytes, before any decoding.
            now: Aware datetime; decides which secrets are active and how old a timestamp is.

        Raises:
            SignatureRefused: No secret verified the request. ``reason`` says why, ``fault`` who has to fix it.
        """
        ...
