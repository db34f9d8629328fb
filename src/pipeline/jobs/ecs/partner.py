"""eCard Systems as a partner: its announcement, its callback's body and id, and the connections of its callbacks."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast
from uuid import NAMESPACE_URL, UUID, uuid5

from pipeline.contracts import BatchRequested, CallbackBody
from pipeline.contracts.strict_json import parse_object
from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.jobs.partners import Callback, JobAnnouncement, JobResult, Notifications, NotifierContext
from pipeline.outbound import ClientCredentials, open_session, split_url
from pipeline.secret_files import TokenFile

if TYPE_CHECKING:
    from pipeline.jobs.ecs.tokens import TokenProvider


class EcsPartner:
    """eCard Systems with the callback settings of one integration; see :class:`~pipeline.jobs.partners.Partner`."""

    error_message_limit: Final = 1200
    """The longest ``error_message`` (ECS's page "Card Batch Jobs", error state)."""

    field_names: Final[Mapping[str, str]] = MappingProxyType({})
    """Empty: the stages use the names of ECS's fields."""

    def __init__(self, settings: CallbackSettings) -> None:
        self._settings = settings

    def decode(self, value: bytes) -> JobAnnouncement:
        """See Partner. It keeps fields of the announcement that it does not know."""
        return JobAnnouncement.model_validate(BatchRequested.model_validate(parse_object(value)).model_dump())

    def callback(self, announcement: JobAnnouncement, result: JobResult) -> Callback:
        """See Partner."""
        body = CallbackBody(
            success=result.error_message is None,
            records_processed=result.records_processed,
            records_failed=result.records_failed,
            error_message=result.error_message,
        ).model_dump_json()
        return Callback(body, request_id(announcement.job_guid, body.encode()))

    @asynccontextmanager
    async def open_notifications(self, context: NotifierContext) -> AsyncIterator[Notifications]:
        """See Partner.

        The host of ``oauth.token_url`` is allowed for token requests only. It needs no entry among the callback hosts,
        and the bearer token is never sent to it.
        """
        # only CONFIRM sends callbacks, but every process loads the partner's settings
        from pipeline.jobs.ecs.caller import HttpCaller  # noqa: PLC0415
        from pipeline.jobs.ecs.token_watch import TokenWatch  # noqa: PLC0415

        settings = self._settings
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(open_session(context.hosts, context.network, "callback"))
            tokens = await self._tokens(context, stack)
            watch = TokenWatch(
                tokens,
                integration=context.integration,
                metrics=context.metrics,
                clock=context.clock,
                resume=context.resume,
            )
            caller = HttpCaller(
                settings,
                integration=context.integration,
                rules=context.hosts,
                session=session,
                tokens=tokens,
                metrics=context.metrics,
                clock=context.clock,
                watch=watch,
                saw_date=context.saw_date,
            )
            yield Notifications(caller, settings.retry.policy, [watch.run], {"token": watch.check}, caller.ready)

    async def _tokens(self, context: NotifierContext, stack: AsyncExitStack) -> TokenProvider:
        from pipeline.jobs.ecs.tokens import EcsTokens, FileTokenProvider  # noqa: PLC0415 - as above

        settings = self._settings
        if settings.token_file is not None:
            return FileTokenProvider(settings.token_file, integration=context.integration, remember=context.remember)
        oauth = cast("OAuthSettings", settings.oauth)  # the settings hold exactly one of the two
        secret = oauth.client_secret or TokenFile(cast("Path", oauth.client_secret_file))
        rules = context.hosts.model_copy(update={"callback": (split_url(oauth.token_url).authority,)})
        session = await stack.enter_async_context(open_session(rules, context.network, "callback"))
        return ClientCredentials(
            oauth.token_url,
            EcsTokens(oauth.client_id, oauth.scope),
            secret=secret,
            session=lambda: nullcontext(session),
            timeout_seconds=settings.timeout_seconds,
            clock=context.clock,
            remember=context.remember,
        )


def request_id(job_guid: UUID, body: bytes) -> str:
    """Return the ``X-Request-Id`` of a callback: the same job and body give the same id after any restart.

    If ECS has seen the id with the same payload within two hours, it repeats its first answer. If it has seen the id
    with another payload, it refuses the callback. So another body needs another id.
    """
    digest = hashlib.sha256(body).hexdigest()
    return str(uuid5(NAMESPACE_URL, f"urn:card-pipeline:callback:{job_guid}:{digest}"))
