"""``pipeline sandbox``: a simulated ECS, object store, card API and Weavr, and an embedded broker."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal, get_args

import click

from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.integration_writer import append_tables
from pipeline.cli.output import json_option, print_fields, print_json
from pipeline.cli.sandbox_events import send_weavr_events
from pipeline.errors import FatalError
from pipeline.kafka.embedded import EmbeddedBroker
from pipeline.sandbox import (
    CardFile,
    HmacScheme,
    JobRequest,
    ObjectStoreSettings,
    Sandbox,
    SandboxSettings,
    SharedSecretScheme,
    send_job,
    settings_snippet,
)
from pipeline.sandbox.jobs import Content
from pipeline.sandbox.snippets import parts_snippet, weavr_snippet
from pipeline.signals import stop_on_signals

Mode = Literal["aws-like", "value-enforcing"]


@click.group()
def sandbox() -> None:
    """Try the pipeline without ECS, Weavr, Kafka or S3 (docs/reference/sandbox.md)."""


sandbox.add_command(send_weavr_events)


@sandbox.command(
    epilog="""\b
Example:
  pipeline sandbox serve --webhook-url http://127.0.0.1:8080/webhooks/ecs/acme --write-settings acme/
prints when it is ready
  {"ready": "sandbox", "url": "...", "control_url": "...", "settings": "acme/pipeline.toml"}"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 picks a free one."
)
@click.option("--public-url", help="Base of the URLs in announcements, if others reach the sandbox under another name.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for objects. Default: a new temporary one.",
)
@click.option("--webhook-url", help="URL to which the sandbox announces jobs.")
@click.option("--scheme", type=click.Choice(["shared-secret", "hmac"]), default="shared-secret", show_default=True)
@click.option(
    "--store",
    "mode",
    type=click.Choice(get_args(Mode)),
    default="aws-like",
    show_default=True,
    help="Ignore the CRC32 of an empty body in upload URLs, as S3 does, or enforce it, as other servers do.",
)
@click.option(
    "--write-settings",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder: write pipeline.toml and secrets for an integration with this sandbox into it.",
)
@click.option("--integration", default="acme", show_default=True, help="Name of that integration.")
def serve(
    *,
    host: str,
    port: int,
    public_url: str | None,
    data_dir: Path | None,
    webhook_url: str | None,
    scheme: str,
    mode: Mode,
    folder: Path | None,
    integration: str,
) -> None:
    """Run a simulated ECS, an object store with S3's rules, and a card API, all on one port."""
    settings = SandboxSettings(
        data_dir=data_dir or Path(tempfile.mkdtemp(prefix="card-pipeline-sandbox-")),
        host=host,
        port=port,
        public_url=public_url,
        webhook_url=webhook_url,
        scheme=HmacScheme() if scheme == "hmac" else SharedSecretScheme(),
        object_store=ObjectStoreSettings(mode=mode),
    )
    asyncio.run(_serve(settings, folder, integration))


@sandbox.command(
    "send-job",
    epilog="""\b
Examples:
  pipeline sandbox send-job --records 200 --wait 60
  pipeline sandbox send-job --content html --wait 60 --json
Exit 0: announced (with --wait: completed). Exit 1: refused, or failed. Exit 4: no callback in time.""",
)
@click.option(
    "--control-url",
    default="http://127.0.0.1:8090/control",
    show_default=True,
    help="Control URL of the running sandbox.",
)
@click.option(
    "--records", type=click.IntRange(min=0), default=200, show_default=True, help="Number of cards in the file."
)
@click.option(
    "--bad-share", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of invalid cards."
)
@click.option("--gzip", "compressed", is_flag=True, help="Compress the input file.")
@click.option("--content", type=click.Choice(get_args(Content)), default="cards", show_default=True)
@click.option("--expires-in", type=float, default=3600.0, show_default=True, help="Seconds until the URLs expire.")
@click.option("--webhook-url", help="URL to announce the job to. Default: the --webhook-url of `sandbox serve`.")
@click.option("--wait", type=click.FloatRange(min=0), help="Seconds to wait for the callback.")
@json_option
@click.pass_context
def send(
    ctx: click.Context,
    *,
    control_url: str,
    records: int,
    bad_share: float,
    compressed: bool,
    content: Content,
    expires_in: float,
    webhook_url: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Let the sandbox's ECS make a card file and announce a job."""
    request = JobRequest(
        cards=CardFile(records=records, bad_share=bad_share, gzip=compressed),
        content=content,
        expires_in_seconds=expires_in,
        webhook_url=webhook_url,
    )
    view = asyncio.run(send_job(control_url, request, wait_seconds=wait or 0))
    accepted = any(one["accepted"] for one in view["announcements"])
    if as_json:
        print_json(view)
    else:
        fields = {name: view[name] for name in ("job_guid", "status", "success", "record_count", "callbacks")}
        callback = view.get("callback")
        print_fields(fields | {"callback": callback["body"] if callback else None})
    ctx.exit(_exit_code(view, accepted=accepted, waited=wait is not None))


@sandbox.command(
    epilog="""\b
Example:
  pipeline sandbox broker
prints
  {"ready": "broker", "bootstrap_servers": "127.0.0.1:40123"}"""
)
@click.option(
    "--until-eof", is_flag=True, help="Also stop when standard input ends, for example because the parent process died."
)
def broker(*, until_eof: bool) -> None:
    """Run the embedded Kafka broker in a process of its own: in memory, one member per group, 5 MB per partition."""
    with EmbeddedBroker() as embedded:
        print_json({"ready": "broker", "bootstrap_servers": embedded.bootstrap_servers})
        asyncio.run(_until_stopped(until_eof=until_eof))


async def _serve(settings: SandboxSettings, folder: Path | None, integration: str) -> None:
    stop = asyncio.Event()
    try:
        with stop_on_signals(stop.set):
            async with Sandbox(settings) as running:
                written = _written(running, folder, integration) if folder else None
                print_json(
                    {"ready": "sandbox", "url": running.url, "control_url": running.control_url, "settings": written}
                )
                await stop.wait()
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        raise FatalError(
            "sandbox_failed", f"cannot listen on {address} or write its files ({error.strerror})"
        ) from error


def _written(running: Sandbox, folder: Path, integration: str) -> str:
    file = folder / "pipeline.toml"
    if file.exists():
        raise UsageRefused("settings_exist", f"{file} already exists, and is never overwritten")
    ecs = settings_snippet(running, integration, folder=folder / "secrets")
    weavr = weavr_snippet(integration, folder=folder / "secrets")
    parts = parts_snippet(folder / "secrets")
    append_tables(file, "", f'[logging]\nformat = "console"\n\n{parts}\n{ecs.toml.lstrip()}\n{weavr.toml}')
    return str(file)


async def _until_stopped(*, until_eof: bool) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop.set):
        if until_eof:
            # in a daemon thread, since a file and /dev/null cannot be polled
            Thread(target=_stop_at_eof, args=(asyncio.get_running_loop(), stop), daemon=True).start()
        await stop.wait()


def _stop_at_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        continue
    with suppress(RuntimeError):  # the loop is already closed
        loop.call_soon_threadsafe(stop.set)


def _exit_code(view: dict[str, Any], *, accepted: bool, waited: bool) -> ExitCode:
    if not accepted or view["success"] is False:
        return ExitCode.FINDING
    return ExitCode.UNAVAILABLE if waited and view["success"] is None else ExitCode.OK
