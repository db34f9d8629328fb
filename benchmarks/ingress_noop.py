"""The peer: aiohttp that reads a body and answers 202."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import uvloop
from aiohttp import web


async def answer(request: web.Request) -> web.Response:
    """Answer."""
    await request.read()
    return web.Response(status=202)


async def serve() -> None:
    """Serve until SIGTERM."""
    application = web.Application()
    application.router.add_post("/{anything:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(json.dumps({"ready": "noop", "url": f"http://127.0.0.1:{runner.addresses[0][1]}"}) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(serve())
