"""Talking to a sandbox that runs elsewhere: create a job, wait for its callback, say what ECS got."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp

from pipeline.errors import PermanentError, TransientError
from pipeline.sandbox.jobs import JobRequest

_POLL_SECONDS: Final = 25.0
_ANSWER_SECONDS: Final = 600.0


async def send_job(control_url: str, request: JobRequest, *, wait_seconds: float = 0.0) -> dict[str, Any]:
    """Create a job at a running sandbox and return its view, as ``GET /control/jobs/{guid}`` gives it.

    With ``wait_seconds`` it returns when the callback came or the time is over: ``view["success"]`` is None then.

    Raises:
        TransientError: The sandbox cannot be reached.
        PermanentError: It refuses the request.
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
        raise PermanentError("sandbox_answer", f"HTTP {response.status} is no answer of a sandbox") from error
    if response.status >= 400:  # noqa: PLR2004 - HTTP
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in document.get("problems", ())
        )
        raise PermanentError("sandbox_refused", f"{document.get('error')}{': ' + problems if problems else ''}")
    return dict(document)
