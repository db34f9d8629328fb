"""The control API of a running sandbox, and its client (docs/reference/sandbox.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import aiohttp
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pipeline.errors import PermanentError, TransientError
from pipeline.sandbox.card_api import CARDS_PATH, CardApi
from pipeline.sandbox.cards import CardFile
from pipeline.sandbox.ecs import TOKEN_PATH, Ecs
from pipeline.sandbox.faults import Fault, Faults
from pipeline.sandbox.jobs import Announcement, Job, JobRequest
from pipeline.sandbox.jsonapi import iso
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.tokens import YEAR, Tokens


def announcement_view(announcement: Announcement, *, with_body: bool = False) -> dict[str, object]:
    """Return one announcement as JSON. Its body contains bearer URLs, so it is included only on request."""
    view: dict[str, object] = {
        "expires_at": iso(announcement.expires_at),
        "accepted": announcement.accepted,
        "attempts": [
            {"at": iso(attempt.at), "status": attempt.status, "answer": attempt.answer}
            for attempt in announcement.attempts
        ],
    }
    return view | ({"body": announcement.body.decode()} if with_body else {})


def job_view(ecs: Ecs, job: Job) -> dict[str, object]:
    """Return one job as JSON, with everything that ECS knows about it."""
    traffic = ecs.store.traffic
    callbacks = ecs.desk.of_job(job.guid)
    accepted = [record for record in callbacks if record.reason == "accepted"]
    return {
        "job_guid": str(job.guid),
        "merchant_guid": str(job.merchant_guid),
        "partner_reference_id": job.partner_reference_id,
        "status": ecs.status(job),
        "success": job.success,
        "record_count": job.record_count,
        "created_at": iso(job.created_at),
        "ledger": job.ledger.model_dump(mode="json") if job.ledger else None,
        "announcements": [announcement_view(each) for each in job.announcements],
        "input": _object_view(ecs, job.input_key)
        | {"bytes_sent": traffic.sent[job.input_key], "gets": traffic.round_trips(job.input_key, "GET")},
        "result": _object_view(ecs, job.result_key)
        | {"bytes_received": traffic.received[job.result_key], "puts": traffic.round_trips(job.result_key, "PUT")},
        "callbacks": len(callbacks),
        "callback": accepted[0].view() if accepted else None,
    }


def _object_view(ecs: Ecs, key: str) -> dict[str, object]:
    stored = ecs.store.disk.get(key)
    if stored is None:
        return {"key": key, "path": None, "size": None, "etag": None}
    return {"key": key, "path": str(stored.path.resolve()), "size": stored.size, "etag": stored.etag}


_MAX_WAIT_SECONDS: Final = 60.0
_Model = TypeVar("_Model", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AnnounceRequest(BaseModel):
    """How to announce a job again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expires_in_seconds: float | None = Field(default=None, description="New expiry; default: as in the job")
    repeat: bool = Field(default=False, description="Send the last body again instead of fresh URLs")
    override: dict[str, JsonValue] = Field(default_factory=dict, description="Fields to replace in this announcement")


class TokenRequest(BaseModel):
    """The callback token to mint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lifetime_seconds: float = Field(
        default=YEAR.total_seconds(), description="Lifetime from now on; a negative one has already expired"
    )
    claims: dict[str, JsonValue] = Field(default_factory=dict, description="Claims to replace; null removes a claim")


class Control:
    """Routes below ``/control``. Requests and answers are JSON. An error is a 400 or 404 with ``{"error": ...}``."""

    def __init__(
        self, settings: SandboxSettings, *, ecs: Ecs, card_api: CardApi, tokens: Tokens, faults: Faults
    ) -> None:
        self._settings = settings
        self._ecs = ecs
        self._card_api = card_api
        self._tokens = tokens
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        """Return all routes of the control API."""
        job = "/control/jobs/{guid}"
        return [
            web.get("/control", _guarded(self._overview)),
            web.post("/control/jobs", _guarded(self._create)),
            web.get("/control/jobs", _guarded(self._jobs)),
            web.get(job, _guarded(self._job)),
            web.get(f"{job}/wait", _guarded(self._wait)),
            web.get(f"{job}/announcements", _guarded(self._announcements)),
            web.post(f"{job}/announce", _guarded(self._announce)),
            web.post(f"{job}/expire", _guarded(self._expire)),
            web.post(f"{job}/change", _guarded(self._change)),
            web.get(f"{job}/callbacks", _guarded(self._job_callbacks)),
            web.get(f"{job}/result", _guarded(self._result)),
            web.get("/control/callbacks", _guarded(self._callbacks)),
            web.get("/control/requests", _guarded(self._requests)),
            web.get("/control/cards", _guarded(self._cards)),
            web.post("/control/faults", _guarded(self._add_fault)),
            web.get("/control/faults", _guarded(self._waiting_faults)),
            web.delete("/control/faults", _guarded(self._clear_faults)),
            web.post("/control/tokens", _guarded(self._mint)),
        ]

    async def _overview(self, _request: web.Request) -> web.StreamResponse:
        base = self._ecs.base_url
        return web.json_response(
            {
                "url": base,
                "partner_guid": str(self._settings.partner_guid),
                "webhook_url": self._settings.webhook_url,
                "scheme": self._settings.scheme.model_dump(mode="json"),
                "store_mode": self._settings.object_store.mode,
                "token_url": base + TOKEN_PATH,
                "cards_url": base + CARDS_PATH,
                "jobs": len(self._ecs.jobs),
            }
        )

    async def _create(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, JobRequest)
        if asked.announce and (asked.webhook_url or self._settings.webhook_url) is None:
            raise ValueError("no webhook URL: give one with the job or in the sandbox's settings")
        job = await self._ecs.create(asked)
        return web.json_response(job_view(self._ecs, job), status=201)

    async def _jobs(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response([job_view(self._ecs, job) for job in self._ecs.jobs.values()])

    async def _job(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(job_view(self._ecs, self._ecs.jobs[_guid(request)]))

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        guid, seconds = _guid(request), float(request.query.get("seconds", "30"))
        await self._ecs.wait_callback(guid, min(seconds, _MAX_WAIT_SECONDS))
        return web.json_response(job_view(self._ecs, self._ecs.jobs[guid]))

    async def _announcements(self, request: web.Request) -> web.StreamResponse:
        job = self._ecs.jobs[_guid(request)]
        return web.json_response([announcement_view(each, with_body=True) for each in job.announcements])

    async def _announce(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, AnnounceRequest)
        announcement = await self._ecs.announce(
            _guid(request),
            expires_in_seconds=asked.expires_in_seconds,
            repeat=asked.repeat,
            override=asked.override,
        )
        return web.json_response(announcement_view(announcement))

    async def _expire(self, request: web.Request) -> web.StreamResponse:
        self._ecs.expire(_guid(request))
        return await self._job(request)

    async def _change(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        cards = CardFile.model_validate_json(raw) if raw else None
        job = await self._ecs.change_input(_guid(request), cards)
        return web.json_response(job_view(self._ecs, job))

    async def _job_callbacks(self, request: web.Request) -> web.StreamResponse:
        job = self._ecs.jobs[_guid(request)]
        return web.json_response([record.view() for record in self._ecs.desk.of_job(job.guid)])

    async def _result(self, request: web.Request) -> web.StreamResponse:
        job = self._ecs.jobs[_guid(request)]
        stored = self._ecs.store.disk.get(job.result_key)
        if stored is None:
            raise KeyError("no result was uploaded")
        return web.FileResponse(stored.path, headers={"Content-Type": "text/csv"})

    async def _callbacks(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response([record.view() for record in self._ecs.desk.records])

    async def _requests(self, _request: web.Request) -> web.StreamResponse:
        traffic = self._ecs.store.traffic
        return web.json_response({"requests": traffic.rows(), "rewritten": dict(traffic.rewritten)})

    async def _cards(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self._card_api.view())

    async def _add_fault(self, request: web.Request) -> web.StreamResponse:
        self._faults.add(await _body(request, Fault))
        return web.json_response(self._faults.waiting(), status=201)

    async def _waiting_faults(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self._faults.waiting())

    async def _clear_faults(self, _request: web.Request) -> web.StreamResponse:
        self._faults.clear()
        return web.json_response([])

    async def _mint(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, TokenRequest)
        lifetime = timedelta(seconds=asked.lifetime_seconds)
        return web.json_response(
            {"token": self._tokens.mint(self._settings.partner_guid, lifetime=lifetime, claims=asked.claims)}
        )


def _guarded(handler: Handler) -> Handler:
    """Wrap a handler so that an invalid request is answered with a list of its problems."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return web.json_response({"error": "the request is not valid", "problems": problems}, status=400)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        except KeyError as error:
            return web.json_response({"error": f"not found: {error}"}, status=404)

    return guarded


async def _body(request: web.Request, model: type[_Model]) -> _Model:
    raw = await request.read()
    return model.model_validate(json.loads(raw) if raw else {})


def _guid(request: web.Request) -> UUID:
    return UUID(request.match_info["guid"])


_POLL_SECONDS: Final = 25.0
_ANSWER_SECONDS: Final = 600.0


async def send_job(control_url: str, request: JobRequest, *, wait_seconds: float = 0.0) -> dict[str, Any]:
    """Create a job at a running sandbox, and return it as ``GET /control/jobs/{guid}`` does.

    With ``wait_seconds``, it waits for the callback. If the time is over first, ``view["success"]`` is None.

    Raises:
        TransientError: The sandbox cannot be reached.
        PermanentError: The sandbox refuses the request.
    """
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    body = request.model_dump(mode="json", exclude_unset=True)
    base = control_url.rstrip("/")
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.post(f"{base}/jobs", json=body) as response:
                view = await _read(response)
            return await _wait(session, f"{base}/jobs/{view['job_guid']}/wait", view, wait_seconds)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransientError(
            "sandbox_unreachable", f"no sandbox answers at {control_url} ({type(error).__name__}): is it running?"
        ) from error


async def _wait(session: aiohttp.ClientSession, url: str, view: dict[str, Any], seconds: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while view["success"] is None and (left := end - loop.time()) > 0:
        async with session.get(url, params={"seconds": str(min(left, _POLL_SECONDS))}) as response:
            view = await _read(response)
    return view


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        document: Any = await response.json()
    except (aiohttp.ContentTypeError, ValueError) as error:
        raise PermanentError("sandbox_answer", f"HTTP {response.status} is not an answer of a sandbox") from error
    if response.status >= 400:  # noqa: PLR2004 - HTTP
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in document.get("problems", ())
        )
        raise PermanentError("sandbox_refused", f"{document.get('error')}{': ' + problems if problems else ''}")
    return dict(document)
