"""Errors, sorted by what the runner does with them, not by who raised them.

Each package at the edge translates foreign exceptions once, with ``raise ... from``. Operators read a ``message``; a
partner may receive it. It names the field, the limit, the rule and what to do. It never holds a card number, a token,
or the query of a URL.
"""

from __future__ import annotations

from typing import Any, Final


class PipelineError(Exception):
    """Base of all expected errors.

    Attributes:
        code: Stable snake_case identifier, e.g. ``csv_unterminated_quote``. Part of the public contract
            (docs/reference/errors.md): scripts and dashboards match on it.
        message: One or two sentences for a person, free of secrets and card data.
    """

    def __init__(self, code: str, message: str) -> None:
        """Keep the two parts apart, so that a log can carry the code as a field."""
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Render as ``code: message``."""
        return f"{self.code}: {self.message}"


class PermanentError(PipelineError):
    """Repeating cannot help: the record is dead-lettered, or the job fails with this reason."""


class PoisonRecord(PermanentError):
    """A record that cannot be decoded at all: dead-lettered with its reason; never blocks its partition."""


class TransientError(PipelineError):
    """Repeating may help: retried with backoff, within the deadline of the job.

    Attributes:
        retry_after: Seconds that the other side asked to wait, or None for the runner's own backoff.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        """Store the pause that the other side asked for, if any."""
        super().__init__(code, message)
        self.retry_after = retry_after


class Untried(TransientError):
    """The job was not tried, because a condition that lasts is known already: it is parked at once, not retried."""


class Overloaded(PipelineError):
    """We have enough work: keep the record, pause, offer it again. Never counted as an attempt."""


class LeaseLost(PipelineError):
    """Someone else may own this work by now: stop before the next effect, without a trace in the store.

    Raised when the partition was revoked, the member has had no successful heartbeat for too long, or another worker
    won the creation of an object that decides. The runner drops the work silently; it is not a failure of the job.
    """


class FatalError(PipelineError):
    """This process cannot do its work: stop it, non-zero, with this message."""


def most_severe(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the one error of a group of tasks that decides what is done about all of them.

    What nobody expected comes first, so that it is never hidden by an expected error; then what stops the process, what
    forbids every further effect, what no repetition helps against, what one may help against.
    """
    found = (most_severe(one) if isinstance(one, BaseExceptionGroup) else one for one in group.exceptions)
    return min(found, key=_mildness)


_BY_SEVERITY: Final = (FatalError, LeaseLost, PermanentError, TransientError, Overloaded)


def _mildness(error: BaseException) -> int:
    rank = next((rank for rank, kind in enumerate(_BY_SEVERITY) if isinstance(error, kind)), None)
    if rank is None:
        # kinds of its own that a package never lets out end its work as a lost lease does
        return _BY_SEVERITY.index(LeaseLost) if isinstance(error, PipelineError) else -1
    return rank
