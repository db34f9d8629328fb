"""What the receiving side knows of a verification scheme, whoever's scheme it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from pipeline.contracts import Headers


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of an integration, with the time in which it counts. Several overlap while one is exchanged.

    Attributes:
        id: Its name in logs; never derived from its value.
        value: Not empty: an empty secret would be known to everybody.
        not_before: First moment in which it counts; None: always did.
        not_after: First moment in which it counts no more; None: counts on.
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
        """Return whether the secret counts at this moment (aware datetime)."""
        begun = self.not_before is None or self.not_before <= now
        return begun and (self.not_after is None or now < self.not_after)

    @property
    def key(self) -> bytes:
        """The value as bytes (UTF-8), for the arithmetic only."""
        return self.value.get_secret_value().encode()


class Scheme(Protocol):
    """Decides whether a request comes from who shares a secret with us. Pure: the same input, the same answer."""

    @property
    def stored_headers(self) -> frozenset[str]:
        """Lower-case names of the headers to keep with the body, so that a subscriber can verify it again.

        Empty where a header is the secret itself.
        """
        ...

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """Return the id of the secret that verified the request.

        Every active secret is tried, each in constant time, whichever matched: the time taken tells nothing about them.

        Args:
            headers: As received, with repetitions; names are compared without regard to case.
            body: The raw bytes, before anything decoded them.
            now: Aware datetime; decides which secrets count and how old a timestamp is.

        Raises:
            SignatureRefused: Nothing verified the request; ``reason`` says why, ``fault`` whose fault it is.
        """
        ...
