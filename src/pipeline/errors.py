"""Base classes of errors. The class of an error alone decides what the runner does with it.

The package that uses a library translates its exceptions, with ``raise ... from``. Operators read a ``message``; a
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
        """Take code and message separately, so that a log line can have the code as a field."""
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Render as ``code: message``."""
        return f"{self.code}: {self.message}"


class PermanentError(PipelineError):
    """A retry cannot help: the record is dead-lettered, or the job fails with this reason."""


class PoisonRecord(PermanentError):
    """A record that cannot be decoded. It is dead-lettered with the reason, and never blocks its partition."""


class TransientError(PipelineError):
    """A retry may help: the work is retried with backoff, within the deadline of the job.

    Attributes:
        retry_after: The pause in seconds that the other side requested, or None for the runner's own backoff.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        """Store the pause that the other side asked for, if any."""
        super().__init__(code, message)
        self.retry_after = retry_after


class Untried(TransientError):
    """The job was not tried, because a known condition lasts. The job is parked at once instead of retried."""


class Overloaded(PipelineError):
    """This process has enough work: it keeps the record, pauses, and tries again. It does not use up an attempt."""


class LeaseLost(PipelineError):
    """Another worker may own this work by now: stop before the next effect, and write nothing to the store.

    Raised if the partition was revoked, if the member has had no successful heartbeat for too long, or if another
    worker created a deciding object first. The runner drops the work silently; the job does not fail.
    """


class FatalError(PipelineError):
    """This process cannot do its work: it stops with this message and a non-zero exit code."""


def most_severe(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the error of a group that decides how to react to the whole group.

    Unexpected errors come first, so that no expected error hides them. Then come errors that stop the process, that
    forbid further effects, that no retry can fix, and that a retry may fix.
    """
    found = (most_severe(one) if isinstance(one, BaseExceptionGroup) else one for one in group.exceptions)
    return min(found, key=_mildness)


_BY_SEVERITY: Final = (FatalError, LeaseLost, PermanentError, TransientError, Overloaded)


def _mildness(error: BaseException) -> int:
    rank = next((rank for rank, kind in enumerate(_BY_SEVERITY) if isinstance(error, kind)), None)
    if rank is None:
        # other subclasses stay within their package, and end the work like a lost lease
        return _BY_SEVERITY.index(LeaseLost) if isinstance(error, PipelineError) else -1
    return rank
