"""A callback endpoint that says back everything it knows, as no partner should and some gateways do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class LoudEcs:
    """Answers callbacks with a 500 in HTML first, then with a final refusal in JSON:API.

    Attributes:
        known: What every answer holds, besides the request's own token and URL.
        bodies: The callbacks that came.
    """

    def __init__(self) -> None:
        self.known = ""
        self.bodies: list[bytes] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve while the context lasts; yields host and port."""
        application = web.Application()
        application.router.add_post("/{tail:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        said = f"{self.known} {request.headers['Authorization']} {request.url}"
        if len(self.bodies) == 1:
            return web.Response(status=500, text=f"<html>{said}</html>", content_type="text/html")
        errors = [{"status": "400", "title": said, "detail": said, "code": said}]
        return web.json_response({"errors": errors, "meta": {"requestId": said}, "detail": said}, status=400)
