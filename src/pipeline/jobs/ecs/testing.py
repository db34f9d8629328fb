"""Fakes of the caller that notifies ECS, and of the token provider."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from pipeline.errors import PipelineError
from pipeline.jobs.partners import Answer
from pipeline.outbound import Token

ACCEPTED = Answer("accepted", 200, "callback_accepted", "RESULT_RECEIVED: Result upload confirmed")


@dataclass(frozen=True, slots=True)
class Call:
    """One callback that was sent."""

    url: str
    job_guid: str
    body: bytes
    request_id: str


class FakeCaller:
    """Gives the answers of a script, in order, then accepts everything; remembers what was sent.

    Args:
        script: Answers to give and errors to raise.
    """

    def __init__(self, script: Iterable[Answer | PipelineError] = ()) -> None:
        self.script = deque(script)
        self.calls: list[Call] = []

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        """Remember the call and play the next line of the script."""
        self.calls.append(Call(url.get_secret_value(), job_guid, body, request_id))
        line = self.script.popleft() if self.script else ACCEPTED
        if isinstance(line, PipelineError):
            raise line
        return line


class FakeTokenProvider:
    """Returns the first token of a list. Each renewal moves to the next one; the last one stays.

    Args:
        values: Token texts; at least one.
        failure: Raised instead of giving a token, until it is set to None.
        expires_at: Expiry of every token; a test may change it.
    """

    def __init__(self, *values: str, failure: PipelineError | None = None, expires_at: datetime | None = None) -> None:
        self._values = deque(values)
        self.failure = failure
        self.expires_at = expires_at
        self.renewals = 0

    async def token(self) -> Token:
        """Return the current token."""
        if self.failure is not None:
            raise self.failure
        return Token(SecretStr(self._values[0]), self.expires_at)

    async def renew(self, rejected: Token) -> Token:
        """Move to the next token, unless ``rejected`` is no longer the current one."""
        self.renewals += 1
        if len(self._values) > 1 and rejected.value.get_secret_value() == self._values[0]:
            self._values.popleft()
        return await self.token()
