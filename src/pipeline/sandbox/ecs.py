"""The stand-in for eCard Systems: creates and announces jobs, receives callbacks, issues tokens."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from aiohttp import web

from pipeline.sandbox.callbacks import CallbackDecision, CallbackDesk
from pipeline.sandbox.cards import CardFile
from pipeline.sandbox.faults import Fault, Faults, delay, drop
from pipeline.sandbox.jobs import CALLBACK_PATH, Announcement, Job, JobRequest, write_input
from pipeline.sandbox.jsonapi import data_document, error_document, respond, wrong_answer
from pipeline.sandbox.object_store import ObjectStore, job_of
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.tokens import Tokens
from pipeline.sandbox.webhook import Webhook

TOKEN_PATH: Final = "/api/v1/auth/token"  # noqa: S105 - a path
_NOT_PROCESSED: Final = CallbackDecision(0, {}, "refused on purpose before it was read")


class Ecs:
    """The parts of ECS that an integrator uses.

    Attributes:
        base_url: Base of every URL that it issues, without a slash at the end.
        jobs: Every job by GUID.
        desk: Decides about callbacks and records them.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        store: ObjectStore,
        tokens: Tokens,
        webhook: Webhook,
        faults: Faults,
        clock: Callable[[], datetime],
    ) -> None:
        self.base_url = ""
        self.jobs: dict[UUID, Job] = {}
        self.store = store
        self.desk = CallbackDesk(
            tokens,
            job=self._find,
            uploaded=lambda job: store.disk.get(job.result_key) is not None,
            conflict_status=settings.request_id_conflict_status,
            clock=clock,
        )
        self._settings = settings
        self._tokens = tokens
        self._webhook = webhook
        self._faults = faults
        self._clock = clock
        store.on_change = self._change_object

    def routes(self) -> list[web.RouteDef]:
        """Return ECS's own endpoints: the callback and the token."""
        return [web.post(CALLBACK_PATH, self._result_uploaded), web.post(TOKEN_PATH, self._token)]

    async def create(self, request: JobRequest) -> Job:
        """Make the input file, sign the URLs and, unless asked not to, announce the job."""
        job = Job(
            guid=request.job_guid or uuid4(),
            merchant_guid=request.merchant_guid or self._settings.merchant_guid,
            partner_reference_id=request.partner_reference_id or self._settings.partner_reference_id,
            partner_guid=self._settings.partner_guid,
            request=request,
            created_at=self._clock(),
        )
        await self._write_input(job)
        self.jobs[job.guid] = job
        if request.announce:
            await self.announce(job.guid)
        return job

    async def announce(
        self,
        guid: UUID,
        *,
        expires_in_seconds: float | None = None,
        repeat: bool = False,
        override: Mapping[str, object] | None = None,
    ) -> Announcement:
        """Send the webhook with fresh URLs and a new expiry. With ``repeat``, send the last body again instead.

        Fresh URLs reopen a failed job, so that ECS accepts its next callback.

        Raises:
            KeyError: There is no such job.
            ValueError: Neither the job nor the settings have a webhook URL.
        """
        job = self.jobs[guid]
        url = job.request.webhook_url or self._settings.webhook_url
        if url is None:
            raise ValueError("no webhook URL: give one with the job or in the sandbox's settings")
        again = job.announcements[-1] if repeat and job.announcements else None
        announcement = again or self.prepare(job, expires_in_seconds=expires_in_seconds, override=override)
        if again is None:
            job.reopen()
        job.announcements.append(announcement)
        attempts = await self._webhook.send(url, announcement.body, job.request.scheme)
        sent = replace(announcement, attempts=tuple(attempts))
        job.announcements[-1] = sent
        return sent

    def prepare(
        self, job: Job, *, expires_in_seconds: float | None = None, override: Mapping[str, object] | None = None
    ) -> Announcement:
        """Return a fresh announcement without sending it."""
        request, now = job.request, self._clock()
        seconds = request.expires_in_seconds if expires_in_seconds is None else expires_in_seconds
        lifetime = request.url_expires_in_seconds or max(1, round(seconds))
        urls = (
            self.store.download_url(self.base_url, job.input_key, expires=lifetime),
            self.store.upload_url(self.base_url, job.result_key, expires=lifetime, checksum=request.upload_checksum),
        )
        expires_at = now + timedelta(seconds=seconds)
        body = job.body(base=self.base_url, urls=urls, expires_at=expires_at, override=override or {})
        return Announcement(body, urls, expires_at)

    def expire(self, guid: UUID) -> None:
        """Let all issued URLs of a job expire now. Raises KeyError if there is no such job."""
        for announcement in self.jobs[guid].announcements:
            for url in announcement.urls:
                self.store.revoke(url)

    async def change_input(self, guid: UUID, cards: CardFile | None = None) -> Job:
        """Replace the input of a job: by the described file, or by the same file with the next seed.

        Raises:
            KeyError: There is no such job.
        """
        job = self.jobs[guid]
        before = job.request.cards
        spec = cards or before.model_copy(update={"seed": before.seed + 1})
        job.request = job.request.model_copy(update={"cards": spec, "content": "cards"})
        await self._write_input(job)
        return job

    async def wait_callback(self, guid: UUID, seconds: float) -> bool:
        """Wait for the callback of a job, and return whether it came in time. Raises KeyError for an unknown job."""
        job = self.jobs[guid]
        try:
            async with asyncio.timeout(seconds):
                await job.called_back.wait()
        except TimeoutError:
            return False
        return True

    def status(self, job: Job) -> str:
        """Return the state of a job at ECS."""
        if job.success is not None:
            return "RESULT_RECEIVED" if job.success else "FAILURE_RECEIVED"
        if self.store.disk.get(job.result_key) is not None:
            return "RESULT_UPLOADED"
        if not job.announcements:
            return "CREATED"
        if job.announcements[-1].expires_at <= self._clock():
            return "EXPIRED"
        if self.store.traffic.sent[job.input_key]:
            return "INPUT_READ"
        return "ANNOUNCED" if any(each.accepted for each in job.announcements) else "NOT_ANNOUNCED"

    async def _write_input(self, job: Job) -> None:
        request, path = job.request, self.store.disk.new_path()
        job.ledger = await asyncio.to_thread(write_input, path, request.content, request.cards)
        if request.content != "nothing":
            await self.store.disk.adopt(
                job.input_key,
                path,
                modified=self._clock(),
                content_encoding=request.content_encoding,
                checksum=request.checksum,
            )

    async def _change_object(self, key: str) -> None:
        guid = job_of(key)
        if guid in self.jobs:
            await self.change_input(guid)

    def _find(self, guid: str) -> Job | None:
        try:
            return self.jobs.get(UUID(guid))
        except ValueError:
            return None

    async def _result_uploaded(self, request: web.Request) -> web.StreamResponse:
        guid, body = request.match_info["job_guid"], await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        job = self._find(guid)
        faults = self._faults.take("callback", job.guid if job else None)
        await delay(faults)
        if "status" in faults:
            fault = faults["status"]
            answer = self._refusal(fault)
            if "answer" in faults:  # another server answers instead of ECS, e.g. with a maintenance page
                answer = wrong_answer(faults["answer"], guid, at=self._clock())
                answer.set_status(fault.status)
            self.desk.record(guid, body, headers, decision=_NOT_PROCESSED, answered=answer.status)
            return answer
        decision = self.desk.decide(guid, body, headers)
        answer = respond(decision.document, decision.status)
        if "answer" in faults:
            answer = wrong_answer(faults["answer"], guid, at=self._clock())
        answered = 0 if "lost" in faults else answer.status
        self.desk.record(guid, body, headers, decision=decision, answered=answered)
        return drop(request) if "lost" in faults else answer

    async def _token(self, request: web.Request) -> web.StreamResponse:
        faults = self._faults.take("token")
        await delay(faults)
        if "lost" in faults:
            return drop(request)
        if "status" in faults:
            return self._refusal(faults["status"])
        try:
            asked = json.loads(await request.read())
        except ValueError:
            asked = None
        if request.content_type != "application/json" or not isinstance(asked, dict):
            return self._error(400, "the body must be a JSON object, not a form")
        if asked.get("grant_type") != "client_credentials":
            return self._error(400, "grant_type must be client_credentials")
        if not self._is_client(asked):
            return self._error(401, "client_id or client_secret is wrong")
        lifetime = timedelta(seconds=self._settings.oauth_expires_seconds)
        attributes = {
            "access_token": self._tokens.mint(self._settings.partner_guid, lifetime=lifetime),
            "token_type": "Bearer",
            "expires_in": self._settings.oauth_expires_seconds,
            "scope": "batch-jobs",
        }
        return respond(data_document("auth-token", str(uuid4()), attributes, at=self._clock()))

    def _is_client(self, asked: Mapping[str, object]) -> bool:
        known = (self._settings.oauth_client_id, self._settings.oauth_client_secret.get_secret_value())
        given = (str(asked.get("client_id")), str(asked.get("client_secret")))
        return hmac.compare_digest("\0".join(given).encode(), "\0".join(known).encode())

    def _refusal(self, fault: Fault) -> web.Response:
        headers = {"Retry-After": fault.retry_after, "Location": fault.location}
        kept = {name: value for name, value in headers.items() if value is not None}
        document = error_document(str(fault.status), "refused on purpose", at=self._clock())
        return respond(document, fault.status, kept)

    def _error(self, status: int, detail: str) -> web.Response:
        return respond(error_document(str(status), detail, at=self._clock()), status)
