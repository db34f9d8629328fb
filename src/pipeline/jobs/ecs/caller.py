"""The request that notifies ECS of a job's outcome."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from time import perf_counter
from typing import Final
from uuid import UUID

import aiohttp
import structlog
from pydantic import SecretStr
from yarl import URL

from pipeline.errors import TransientError, Untried
from pipeline.jobs.ecs.answers import Meaning, Reaction, interpret
from pipeline.jobs.ecs.settings import CallbackSettings
from pipeline.jobs.ecs.token_watch import TokenWatch
from pipeline.jobs.ecs.tokens import JSON_HEADERS, TokenProvider
from pipeline.jobs.partners import UNANSWERED, Answer, ignore_date
from pipeline.observability import Metrics
from pipeline.outbound import (
    HostRules,
    HostUnavailable,
    HttpAnswer,
    RequestNotSent,
    RequestUnanswered,
    Token,
    TokenUnavailable,
    check_url,
    post,
    request_url,
    retry_after_seconds,
)

log = structlog.get_logger(__name__)

_ABOUT_THE_TOKEN: Final = frozenset({"callback_unauthorized", "callback_forbidden"})

_HOLD_SECONDS: Final = 900.0
"""How long a callback waits for a usable token before it checks again; a new token ends the wait sooner."""


class HttpCaller:
    """Sends the callbacks of one integration.

    It sends the bearer token only to the configured callback hosts. It checks the URL before it gets a token, the
    session checks the address of each connection, and redirects are not followed.

    Args:
        settings: Timeouts and bounds.
        integration: Named in log lines and metrics.
        rules: Hosts that a callback URL may name.
        session: Guarded by the same rules, for callbacks.
        tokens: Where the bearer token comes from.
        metrics: Counts answers by reaction and code.
        clock: UTC, aware; for ``Retry-After`` dates.
        saw_date: See :class:`~pipeline.jobs.partners.NotifierContext`.
        watch: Informed when ECS accepts or rejects the token.
    """

    def __init__(
        self,
        settings: CallbackSettings,
        *,
        integration: str,
        rules: HostRules,
        session: aiohttp.ClientSession,
        tokens: TokenProvider,
        metrics: Metrics,
        clock: Callable[[], datetime],
        watch: TokenWatch,
        saw_date: Callable[[str | None, datetime], None] = ignore_date,
    ) -> None:
        self._saw_date = saw_date
        self._watch = watch
        self._settings = settings
        self._integration = integration
        self._rules = rules
        self._session = session
        self._tokens = tokens
        self._metrics = metrics
        self._clock = clock

    async def ready(self) -> None:
        """Check that there is a token and that it is not known to be expired.

        Raises:
            TransientError: ``token_expired``, or TokenUnavailable. ECS would refuse the callback with 401.
        """
        await self._usable_token()

    async def _usable_token(self) -> Token:
        try:
            return await self._fresh_token()
        except TokenUnavailable as error:
            self._watch.unavailable(error)
            raise

    async def _fresh_token(self) -> Token:
        token = await self._tokens.token()
        if self._expired(token):
            token = await self._tokens.renew(token)
        if self._expired(token):
            raise Untried(
                "token_expired",
                f"the callback token expired at {token.expires_at}, so no callback is sent: ask eCard Systems for a "
                "new one and put it into the file that callback.token_file names",
                retry_after=_HOLD_SECONDS,
            )
        return token

    def _expired(self, token: Token) -> bool:
        return token.expires_at is not None and token.expires_at <= self._clock()

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        """POST the outcome and interpret the answer; after a 401, send it again once with a renewed token.

        If the renewed token equals the rejected one, it sends nothing again: the answer would be the same.

        Raises:
            TransientError: ``callback_not_sent``, ``callback_unanswered`` and ``callback_unclear`` (ECS may have
                received it), ``callback_try_later``, ``callback_server_error``, ``callback_redirected``,
                ``callback_unauthorized``, ``callback_forbidden``, ``token_expired``, or TokenUnavailable;
                ``retry_after`` is the pause that ECS asked for.
            AddressRefused: The callback URL's host, scheme or address is not allowed. Nothing was sent.
        """
        check_url(url.get_secret_value(), self._rules, "callback")
        target, job = request_url(url.get_secret_value()), UUID(job_guid)
        token = await self._usable_token()
        answer, found = await self._post(target, job, body, request_id, token)
        if found.reaction is Reaction.UNAUTHORIZED:
            renewed = await self._tokens.renew(token)
            if renewed.value != token.value:
                answer, found = await self._post(target, job, body, request_id, renewed)
        return self._conclude(answer, found)

    async def _post(
        self, target: URL, job: UUID, body: bytes, request_id: str, token: Token
    ) -> tuple[HttpAnswer, Meaning]:
        headers = {
            **JSON_HEADERS,
            "Authorization": f"Bearer {token.value.get_secret_value()}",
            "X-Request-Id": request_id,
        }
        began, at = perf_counter(), self._clock()
        try:
            answer = await post(
                self._session, target, body=body, headers=headers, timeout_seconds=self._settings.timeout_seconds
            )
        except (RequestNotSent, RequestUnanswered) as error:
            code = "callback_not_sent" if isinstance(error, RequestNotSent) else UNANSWERED
            self._count(Reaction.RETRY, code)
            raise HostUnavailable(code, error.message) from error
        finally:
            self._metrics.callback_seconds.labels(self._integration).observe(perf_counter() - began)
        self._saw_date(answer.headers.get("Date"), at)
        # the answer is stored and logged: first mask the token in it, in case ECS echoes it
        said = answer.body.replace(token.value.get_secret_value().encode(), b"[masked]")
        found = interpret(answer.status, said, job_guid=job)
        self._count(found.reaction, found.code)
        self._log(job, request_id, answer, found)
        return answer, found

    def _conclude(self, answer: HttpAnswer, found: Meaning) -> Answer:
        if found.reaction is Reaction.UNAUTHORIZED:
            # ECS answers 401 before it reads the body, and only a new token helps: the job must not end because of it
            log.error("callback_token_rejected", integration=self._integration, detail=found.detail)
            self._watch.rejected(found.detail)
        else:
            self._watch.accepted()
        if found.reaction in (Reaction.RETRY, Reaction.UNAUTHORIZED):
            pause = retry_after_seconds(answer.headers.get("Retry-After"), now=self._clock())
            # a refused token says nothing about the host
            kind = TransientError if found.code in _ABOUT_THE_TOKEN else HostUnavailable
            raise kind(found.code, f"ECS answered {answer.status}: {found.detail}", retry_after=pause)
        return Answer(
            "accepted" if found.reaction is Reaction.ACCEPTED else "refused", answer.status, found.code, found.detail
        )

    def _count(self, reaction: Reaction, code: str) -> None:
        self._metrics.callback_answers.labels(self._integration, reaction.value, code).inc()

    def _log(self, job: UUID, request_id: str, answer: HttpAnswer, found: Meaning) -> None:
        level = log.info if found.reaction is Reaction.ACCEPTED and found.warning is None else log.warning
        level(
            "callback_posted",
            integration=self._integration,
            job_guid=job,
            request_id=request_id,
            status=answer.status,
            code=found.code,
            detail=found.detail,
            warning=found.warning,
            partner_request_id=found.request_id,
        )
