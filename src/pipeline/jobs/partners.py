"""The interface of a partner that announces jobs. Public API for a partner's package, see CONTRIBUTING.md.

Each partner has its own format of announcements and callbacks. The stages work the same way for all partners: they use
a :class:`JobAnnouncement`, and call a :class:`Partner` for the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Any, Final, Literal, Protocol, cast
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, field_validator

from pipeline.errors import FatalError
from pipeline.observability import Check, Metrics
from pipeline.outbound import HostRules, NetworkSettings
from pipeline.plugins import import_plugin
from pipeline.retry import RetryPolicy

ENTRY_POINT_GROUP: Final = "card_pipeline.partners"

UNANSWERED: Final = "callback_unanswered"
"""Code of a TransientError of :meth:`Notifier.notify`: no answer came, but the partner may have the callback."""

UNCLEAR: Final = "callback_unclear"
"""Code of a TransientError for an answer that is not about the job, e.g. a maintenance page with a success status."""

CONFLICT: Final = "callback_conflict"
"""Code of a refusal: the partner already has an outcome of the job.

After an unanswered try, it is the outcome of that try.
"""

_FIRST_EXPIRY: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EXPIRY_BOUND: Final = datetime(2200, 1, 1, tzinfo=UTC)


class JobAnnouncement(BaseModel):
    """An announced job in the form that all stages use. The store keeps it. A partner may add fields of its own.

    The URLs are bearer secrets: they appear in the job store only.

    Attributes:
        job_guid: Identifies the job in its integration. A partner without GUIDs derives one from its own id (UUID 5).
        partner_reference_id: The job's name among people at the partner.
        merchant_guid: The owner of the cards. It is the same in every announcement of a job, like ``record_count``.
        record_count: Number of data records in the input file, without the header.
        expires_at: When the partner stops waiting for the result.
        callback_url: Where to send the outcome; empty if the partner's notifier knows the address.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="allow", hide_input_in_errors=True)

    job_guid: UUID
    partner_reference_id: str
    merchant_guid: UUID
    external_location_ids: tuple[str, ...] = ()
    record_count: int = Field(ge=0, le=10**12)
    input_file_url: str = Field(repr=False)
    result_upload_url: str = Field(repr=False)
    expires_at: AwareDatetime
    callback_url: str = Field(default="", repr=False)

    @field_validator("expires_at")
    @classmethod
    def _calculable(cls, value: datetime) -> datetime:
        # stages subtract a margin, add a retry time, and write the minute as twelve digits of a store key
        if not _FIRST_EXPIRY <= value < _EXPIRY_BOUND:
            raise ValueError("must be a time between the years 2000 and 2200")
        return value


@dataclass(frozen=True, slots=True)
class JobResult:
    """The part of a job's outcome that the partner gets.

    Attributes:
        records_processed: How many cards are decided, or how many of them are ok (``policies.records_processed``).
        error_message: Why the job failed: one line, masked, without URLs. None for a completed job.
    """

    records_processed: int
    records_failed: int
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Callback:
    """The callback that every try sends. It is stored together with the outcome.

    Attributes:
        request_id: Identifies the callback to the partner. It is the same in all tries; another body has another id.
    """

    body: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The partner's answer to one callback.

    Attributes:
        result: ``accepted``: the partner has the outcome. ``refused``: a repeat with the same body cannot help.
        status: HTTP status; 0 without an answer.
        code: Stable reason, e.g. ``callback_accepted`` or :data:`CONFLICT`.
        detail: The partner's message, masked and cut (:func:`pipeline.jobs.wording.quote`).
    """

    result: Literal["accepted", "refused"]
    status: int
    code: str
    detail: str


async def always_ready() -> None:
    """Return at once. For :attr:`Notifications.ready` of a partner that can always send callbacks."""


class Notifier(Protocol):
    """Sends callbacks."""

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        """Send one callback and interpret the answer.

        Args:
            url: ``callback_url`` of the newest announcement. Check its host before you send anything.
            job_guid: The job.
            body: :attr:`Callback.body`.
            request_id: :attr:`Callback.request_id`.

        Raises:
            TransientError: Send it again later, after ``retry_after`` if that is set: the answer says nothing about
                the outcome, e.g. 401, 503 or a maintenance page. With the codes :data:`UNANSWERED` and :data:`UNCLEAR`
                the partner may have received this try. Tries end ``policies.callback_retry_seconds`` after
                ``expires_at``; then the job is refused.
            PermanentError: It cannot be sent, e.g. because the URL's host is not allowed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Notifications:
    """Everything that one integration needs to notify its partner.

    Attributes:
        retry: Pauses between two callbacks of one outcome.
        services: Coroutines that run beside the stage until it stops. If one fails, it is started again.
        alarms: Named checks of things that only this partner needs. The probe shows them; the process stays ready.
        ready: Called before each callback. It raises a TransientError while none can be sent, e.g. because the token is
            expired. Then nothing is sent, and the call is not a try.
    """

    notifier: Notifier
    retry: RetryPolicy
    services: Sequence[Callable[[], Coroutine[Any, Any, Any]]] = ()
    alarms: Mapping[str, Check] = field(default_factory=dict)
    ready: Callable[[], Awaitable[None]] = always_ready


def ignore_date(_header: str | None, _began: datetime) -> None:
    """Ignore a ``Date`` header."""


class Resume(Protocol):
    """Makes the waiting callbacks of one integration due now. Safe to repeat."""

    async def __call__(self, code: str | None = None) -> object:
        """Resume all of them, or those that wait because of one error code.

        Raises:
            TransientError: The store is not available now; repeat it.
        """
        ...


@dataclass(frozen=True, slots=True)
class NotifierContext:
    """The dependencies of a notifier.

    Attributes:
        integration: Its name, for logs and metrics.
        hosts: Hosts that the integration's URLs may name: ``open_session(hosts, network, "callback")`` reaches these.
        remember: Call it with each secret before you use it, so that logs mask it.
        resume: Call it when waiting callbacks can continue, e.g. when there is a new token.
        saw_date: Call it with the ``Date`` header of an answer and the time before its request, so that the clock is
            compared with the partner's.
    """

    integration: str
    hosts: HostRules
    network: NetworkSettings
    metrics: Metrics
    clock: Callable[[], datetime]
    remember: Callable[[SecretStr], None]
    resume: Resume
    saw_date: Callable[[str | None, datetime], None] = ignore_date


class Partner(Protocol):
    """One partner, with the settings of one integration."""

    @property
    def error_message_limit(self) -> int:
        """Longest error message of a callback, in characters."""
        ...

    @property
    def field_names(self) -> Mapping[str, str]:
        """The partner's names of :class:`JobAnnouncement` fields, if they differ; for error messages."""
        ...

    def decode(self, value: bytes) -> JobAnnouncement:
        """Return the announcement in a record's value, which is the webhook's body that the partner's source accepted.

        Raises:
            InvalidBody: The value is not an announcement. A pydantic ValidationError has the same effect.
        """
        ...

    def callback(self, announcement: JobAnnouncement, result: JobResult) -> Callback:
        """Return the callback of an outcome. Pure: equal arguments give an equal callback."""
        ...

    def open_notifications(self, context: NotifierContext) -> AbstractAsyncContextManager[Notifications]:
        """Open the connections for one integration's callbacks; the end of the block closes them.

        Raises:
            FatalError: The integration's settings or files cannot be used.
        """
        ...


class PartnerKind(Protocol):
    """The target of an entry point of the group ``card_pipeline.partners``: a class without constructor parameters."""

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - a class inside the class
        """Model of the ``options`` in an integration's table; it should refuse unknown keys."""
        ...

    def partner(self, name: str, options: Any) -> Partner:
        """Return the partner of one integration.

        Args:
            name: The integration's name.
            options: An instance of ``Options``.
        """
        ...


def load_partner_kind(name: str) -> PartnerKind:
    """Return the installed partner of that name.

    Raises:
        FatalError: It is not installed (the message lists those that are), cannot be imported, or is not a partner.
    """
    installed = entry_points(group=ENTRY_POINT_GROUP)
    if name not in installed.names:
        known = ", ".join(sorted(installed.names)) or "none"
        raise FatalError("partner_unknown", f"There is no partner {name!r}. Installed: {known}.")
    point = installed[name]

    def refused(why: str) -> FatalError:
        return FatalError("partner_unknown", f"Partner {name} ({point.value}) cannot be imported: {why}.")

    target: Any = import_plugin(point, refused)
    options = getattr(target, "Options", None)
    if not inspect.isclass(target) or not inspect.isclass(options) or not issubclass(options, BaseModel):
        raise FatalError("partner_invalid", f"{name} ({point.value}) needs to be a class with a pydantic `Options`.")
    if not callable(getattr(target, "partner", None)):
        raise FatalError("partner_invalid", f"{name} ({point.value}) needs `partner(self, name, options)`.")
    return cast("PartnerKind", target())
