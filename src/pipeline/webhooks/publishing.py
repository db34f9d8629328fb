"""Durable within a hard deadline, or a refusal that says so."""

from __future__ import annotations

import asyncio

from pipeline.contracts import OutgoingRecord
from pipeline.errors import Overloaded, TransientError
from pipeline.kafka.errors import RecordTooLarge
from pipeline.kafka.protocols import Publisher
from pipeline.webhooks.problems import Problem
from pipeline.webhooks.statuses import Answer


class DurablePublishing:
    """Publishes records one after another, so that the audit log never tells of an event that is not there."""

    def __init__(self, publisher: Publisher, *, deadline_seconds: float, retry_after_seconds: int) -> None:
        """Take the time for all records of a request together, and the pause to ask for where it does not suffice."""
        self._publisher = publisher
        self._deadline = deadline_seconds
        self._retry_after = retry_after_seconds

    async def all(self, *records: OutgoingRecord) -> None:
        """Return when every in-sync replica has every record.

        The first one may be durable although the call fails; repeating is safe, since ids are deterministic.

        Raises:
            Problem: 413 the record is too large for the broker; 503 everything else that may pass.
        """
        try:
            async with asyncio.timeout(self._deadline):
                for record in records:
                    await self._publisher.publish(record)
        except TimeoutError:
            raise self._later(Answer.BROKER_UNAVAILABLE, "deadline") from None
        except Overloaded as error:
            raise self._later(Answer.OVERLOADED, error.code) from error
        except RecordTooLarge as error:
            raise Problem(Answer.RECORD_TOO_LARGE) from error
        except TransientError as error:
            raise self._later(Answer.BROKER_UNAVAILABLE, error.code, error.retry_after) from error

    def _later(self, answer: Answer, reason: str, retry_after: float | None = None) -> Problem:
        seconds = max(1, round(retry_after)) if retry_after else self._retry_after
        return Problem(answer, reason=reason, headers={"Retry-After": str(seconds)})
