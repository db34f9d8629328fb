"""Calls a partner's plug-in, so that any error in it affects one job only. The text of the error is never shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import structlog
from pydantic import SecretStr, ValidationError

from pipeline.contracts.strict_json import InvalidBody
from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.jobs.partners import (
    UNANSWERED,
    Answer,
    Callback,
    JobAnnouncement,
    JobResult,
    Notifications,
    Notifier,
    NotifierContext,
    Partner,
)
from pipeline.observability import Check, Health
from pipeline.plugins import Fault, PluginFailed, contained, contained_call

log = structlog.get_logger(__name__)

Service = Callable[[], Coroutine[Any, Any, Any]]

_SERVICE_PAUSE_SECONDS: Final = 30.0
_SHORTEST_MESSAGE: Final = 80
"""Longest error message, in characters, for a partner whose ``error_message_limit`` fails."""


class ContainedPartner:
    """Calls a partner.

    If it cannot decode a job's announcement or build its callback, the job is retried, then parked
    (``partner_failed``).
    """

    def __init__(self, partner: Partner, name: str) -> None:
        """Use ``name`` for the partner in messages."""
        self._partner = partner
        self._name = name

    @property
    def error_message_limit(self) -> int:
        """See Partner; 80 if the partner fails."""
        try:
            limit: object = contained_call(lambda: self._partner.error_message_limit, PluginFailed)
        except PluginFailed as failed:
            self._log("error_message_limit", failed.fault)
            limit = None
        return limit if isinstance(limit, int) and limit > 0 else _SHORTEST_MESSAGE

    @property
    def field_names(self) -> Mapping[str, str]:
        """See Partner; empty if the partner fails."""
        try:
            return contained_call(lambda: dict(self._partner.field_names), PluginFailed)
        except PluginFailed as failed:
            self._log("field_names", failed.fault)
            return MappingProxyType({})

    def decode(self, value: bytes) -> JobAnnouncement:
        """See Partner.

        Raises:
            TransientError: The partner failed (``partner_failed``).
        """
        call = partial(self._partner.decode, value)
        decoded: object = contained_call(call, partial(self._failed, "decode"), InvalidBody, ValidationError)
        if not isinstance(decoded, JobAnnouncement):
            raise self._wrong("decode", decoded, "JobAnnouncement")
        return decoded

    def callback(self, announcement: JobAnnouncement, result: JobResult) -> Callback:
        """See Partner.

        Raises:
            TransientError: The partner failed (``partner_failed``).
        """
        call = partial(self._partner.callback, announcement, result)
        made: object = contained_call(call, partial(self._failed, "callback"))
        if not isinstance(made, Callback):
            raise self._wrong("callback", made, "Callback")
        return made

    @asynccontextmanager
    async def open_notifications(self, context: NotifierContext) -> AsyncIterator[Notifications]:
        """See Partner."""

        def failed(fault: Fault) -> FatalError:
            self._log("open_notifications", fault)
            return FatalError("partner_invalid", f"Partner {self._name}: its open_notifications raised {fault}.")

        opened = contained_call(partial(self._partner.open_notifications, context), failed, FatalError)
        found = await contained(opened.__aenter__, failed, FatalError)
        try:
            yield replace(
                found,
                notifier=_ContainedNotifier(found.notifier, self._name, self._log),
                services=[partial(self._serve, service) for service in found.services],
                alarms={name: self._checked(check) for name, check in found.alarms.items()},
                ready=lambda: contained(found.ready, partial(self._failed, "ready"), TransientError),
            )
        finally:
            try:
                await contained(lambda: opened.__aexit__(None, None, None), PluginFailed)
            except PluginFailed as closing:
                self._log("open_notifications", closing.fault)

    async def _serve(self, service: Service) -> None:
        """Run a service; start it again if it fails, so that it does not stop the jobs of other partners."""
        while True:
            try:
                await contained(service, PluginFailed, FatalError)
            except PluginFailed as failed:
                self._log("services", failed.fault)
            else:
                return
            await asyncio.sleep(_SERVICE_PAUSE_SECONDS)

    def _checked(self, check: Check) -> Check:
        def checked() -> Health:
            try:
                found: object = contained_call(check, PluginFailed)
            except PluginFailed as failed:
                return Health(ok=False, message=f"the check of partner {self._name} raised {failed.fault}")
            if isinstance(found, Health):
                return found
            what = f"returned {type(found).__name__} instead of Health"
            return Health(ok=False, message=f"the check of partner {self._name} {what}")

        return checked

    def _failed(self, call: str, fault: Fault) -> TransientError:
        self._log(call, fault)
        return TransientError("partner_failed", f"Partner {self._name}: its {call} raised {fault}.")

    def _wrong(self, call: str, found: object, wanted: str) -> TransientError:
        return TransientError(
            "partner_failed", f"Partner {self._name}: its {call} returned {type(found).__name__} instead of {wanted}."
        )

    def _log(self, call: str, fault: Fault) -> None:
        log.error("partner_failed", partner=self._name, call=call, error=fault.kind, frames=fault.lines)


class _ContainedNotifier:
    """Sends callbacks. After an unexpected error, the partner may have the callback: it is reported as unanswered."""

    def __init__(self, notifier: Notifier, name: str, note: Callable[[str, Fault], None]) -> None:
        self._notifier = notifier
        self._name = name
        self._note = note

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        """See Notifier."""

        def failed(fault: Fault) -> TransientError:
            self._note("notify", fault)
            return TransientError(UNANSWERED, f"Partner {self._name}: its notify raised {fault}.")

        call = partial(self._notifier.notify, url, job_guid=job_guid, body=body, request_id=request_id)
        answer: object = await contained(call, failed, TransientError, PermanentError)
        if not isinstance(answer, Answer):
            raise TransientError(
                UNANSWERED, f"Partner {self._name}: its notify returned {type(answer).__name__} instead of Answer."
            )
        return answer
