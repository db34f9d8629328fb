"""``pipeline sources``: list the configured webhooks, and find out why one refuses a request."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.job_view import NotFound
from pipeline.cli.output import json_option, print_json, print_line, print_table
from pipeline.cli.request_files import read_bytes, read_headers
from pipeline.cli.source_capture import CaptureTask, capture
from pipeline.cli.source_trial import Trial, try_request
from pipeline.cli.source_view import Configured, Key, configured, find_source
from pipeline.cli.times import Duration, Time, now
from pipeline.kafka import Point
from pipeline.settings import DEFAULT_FILE
from pipeline.webhooks.capture import MOST_REQUESTS, MOST_TIME, RefusedRequest, read_captured
from pipeline.webhooks.sources import InvalidBody, WebhookRequest
from pipeline.webhooks.verification import Match, discover, is_active

_COLUMNS = ("name", "kind", "path", "scheme", "keys", "topics", "success", "unverified", "invalid")
_FEW = 2

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def sources() -> None:
    """List the configured webhooks, and find out why one refuses a request."""


@sources.command(
    "list", epilog="Example: pipeline sources list --json | jq 'select(.keys | all(.active | not)) | .name'"
)
@json_option
@pass_setup
def list_sources(setup: Setup, *, as_json: bool) -> None:
    """Print each configured webhook: path, verification, keys with their dates, topics. With --json, one per line.

    It neither reads nor shows secrets. A secret path segment appears as {secret}.
    """
    found = configured(setup.settings())
    if as_json:
        for one in found:
            print_json(one.document(now()))
        return
    print_table(_COLUMNS, [_row(one) for one in found])


@sources.command(
    "test",
    epilog="""\b
Examples:
  pipeline sources test acme --headers headers.txt --body body.json --at 2026-01-22T22:43:59Z
  pipeline sources test weavr.acme --path /managed_cards/watch --headers headers.txt --body body.json --json
  pipeline sources test acme --captured FILE --number 1 --try-all""",
)
@click.argument("name", metavar="SOURCE")
@click.option("--path", default="", help="Path relative to the webhook's path, such as /managed_cards/watch.")
@click.option(
    "--headers",
    "headers_file",
    type=_file,
    help="File of headers: `Name: value` lines, as curl -D writes them, or JSON.",
)
@click.option("--body", "body_file", type=_file, help="File with the raw body.")
@click.option("--client", default="-", help="IP address of the sender, if the source checks it.")
@click.option("--at", "at", type=Time(future=True), help="Time of arrival: ISO 8601 with a zone. Default: now.")
@click.option(
    "--captured", "captured_file", type=_file, help="File of `sources capture`, instead of the options above."
)
@click.option(
    "--number", default=1, show_default=True, type=click.IntRange(min=1), help="Number of the request in that file."
)
@click.option(
    "--try-all", is_flag=True, help="Try all known signature schemes with the source's secrets; exit 0 if one matches."
)
@json_option
@pass_setup
@click.pass_context
def test(
    ctx: click.Context,
    setup: Setup,
    *,
    name: str,
    path: str,
    headers_file: Path | None,
    body_file: Path | None,
    client: str,
    at: Point | None,
    captured_file: Path | None,
    number: int,
    try_all: bool,
    as_json: bool,
) -> None:
    """Try a request on a source, offline: is it authentic, which event is it, which step fails.

    SOURCE is a name, or a table such as weavr.acme where several sources share a name. The command reads the secrets
    from their files, and never prints a secret, a signature or a body. Exit 0 if the ingress would accept the request,
    otherwise 1.
    """
    given = _Given(path, headers_file, body_file, client, at if isinstance(at, datetime) else None)
    one = find_source(configured(setup.settings(webhook_secrets=True), secrets=True), name)
    request, came = given.request() if captured_file is None else given.captured(captured_file, number)
    trial = try_request(one, request, came)
    matches = _matches(one, request, came) if try_all else None
    if as_json:
        more = {} if matches is None else {"matches": [match.document() for match in matches]}
        print_json(trial.document() | more)
    else:
        _print_trial(trial)
        if matches is not None:
            _print_matches(one, matches)
    ctx.exit(ExitCode.OK if (trial.ok if matches is None else matches) else ExitCode.FINDING)


@sources.command(
    "capture",
    epilog="""\b
Examples:
  pipeline sources capture acme --for 10m
  pipeline sources capture acme --for 10m --limit 1 --output refused.jsonl
Exit 0: at least one request was captured. Exit 1: none.""",
)
@click.argument("name", metavar="SOURCE")
@click.option("--for", "span", required=True, type=Duration(), help="How long to capture, e.g. 10m; at most 1h.")
@click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1, MOST_REQUESTS),
    help="Maximum number of requests to keep.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the requests in this file (mode 0600), and end at --limit. Delete the file yourself.",
)
@json_option
@pass_setup
@click.pass_context
def capture_requests(
    ctx: click.Context, setup: Setup, *, name: str, span: timedelta, limit: int, output: Path | None, as_json: bool
) -> None:
    """Store the requests of a source that the ingress processes on this machine refuse, for `sources test`.

    Requests may hold a secret in a header or in the path. So only the owner can read their file, its size is bounded,
    and it is deleted when the time is over or you press Ctrl-C. Needs the setting ingress.capture_dir; run it as the
    user of the ingress.
    """
    settings = setup.settings()
    one = find_source(configured(settings), name)
    if settings.ingress.capture_dir is None:
        raise UsageRefused(
            "capture_off",
            'ingress.capture_dir is not set: write [ingress] capture_dir = "capture" into the settings of the ingress, '
            "start it again, and give this command the same settings",
        )
    if span > MOST_TIME:
        raise UsageRefused("capture_span", "--for must be at most 1h, because captured requests may hold a secret")
    task = CaptureTask(
        folder=settings.ingress.capture_dir,
        source=f"{one.webhook.kind}.{one.webhook.integration}",
        until=now() + span,
        limit=limit,
        output=output,
    )
    kept = output.absolute() if output else None

    def show(file: Path, number: int, request: RefusedRequest) -> None:
        tried = f"{_program(setup)} sources test {one.table} --captured {shlex.quote(str(kept or file))}"
        _show(kept or file, number, request, f"{tried} --number {number}", as_json=as_json)

    count = asyncio.run(capture(task, show))
    left = "their file is deleted" if kept is None else f"they are in {kept}: delete it when you are done"
    click.echo(f"{count} requests captured; {left}" if count else "no request was refused", err=True)
    ctx.exit(ExitCode.OK if count else ExitCode.FINDING)


@dataclass(frozen=True, slots=True)
class _Given:
    """A request that command line options describe."""

    path: str
    headers_file: Path | None
    body_file: Path | None
    client: str
    at: datetime | None

    def request(self) -> tuple[WebhookRequest, datetime]:
        if self.headers_file is None or self.body_file is None:
            raise click.UsageError("give --headers and --body, or --captured")
        headers, body = read_headers(self.headers_file), read_bytes(self.body_file)
        return WebhookRequest.received(self.path, headers, body, self.client), self.at or now()

    def captured(self, file: Path, number: int) -> tuple[WebhookRequest, datetime]:
        if self.headers_file is not None or self.body_file is not None or self.path:
            raise click.UsageError("--captured replaces --path, --headers and --body")
        try:
            requests = read_captured(file)
        except (OSError, ValueError):
            raise UsageRefused("input_unreadable", f"{file} is not a file of `sources capture`") from None
        if number > len(requests):
            raise NotFound("request_unknown", f"{file} holds {len(requests)} requests")
        found = requests[number - 1]
        return found.request, self.at or found.at


def _matches(one: Configured, request: WebhookRequest, at: datetime) -> list[Match]:
    """Return the schemes that verify the request as sent; if none does, those that verify its decompressed body."""
    secrets = one.settings.webhook_secrets()
    found = discover(request.headers, request.body, at, secrets)
    if found or not one.table.startswith("webhooks."):
        return found
    try:
        plain = request.plain_body
    except InvalidBody:
        plain = request.body
    if plain == request.body:
        return []
    return [replace(match, signed_body="plain") for match in discover(request.headers, plain, at, secrets)]


def _print_trial(trial: Trial) -> None:
    for step in trial.steps:
        print_line(f"{'ok  ' if step.ok else 'FAIL'}  {step.step}: {step.detail}")
    found = trial.identified
    outcome = f"verified by {trial.verified.by}" if trial.verified else f"not verified ({trial.reason})"
    print_line(f"{outcome}; {f'{found.type}, key {found.key}, ce_id {found.id}' if found else 'not identified'}")


def _print_matches(one: Configured, matches: Sequence[Match]) -> None:
    table = "[webhooks.NAME.options]" if one.table.startswith("weavr.") else f"[{one.table}.options]"
    table = f"[{one.table}.webhook]" if one.table.startswith("ecs.") else table
    for match in matches:
        remark = f" ({match.remark})" if match.remark else ""
        click.echo(f"\n# {match.name}, with secret {match.secret}{remark}")
        options = "" if match.signed_body == "as-sent" else f'signed_body = "{match.signed_body}"\n'
        if match.preset is not None and one.table.startswith("webhooks."):
            click.echo(f'[{one.table}]\npreset = "{match.preset}"')
        else:
            options = match.toml + options
        if options:
            click.echo(f"{table}\n{options}", nl=False)
    if not matches:
        click.echo("no known signature scheme matches with these secrets", err=True)


def _program(setup: Setup) -> str:
    """Return the start of a command line with this run's settings, usable in any folder."""
    if setup.path is None or setup.path == Path(DEFAULT_FILE):
        return "pipeline"
    return f"pipeline --config {shlex.quote(str(setup.path))}"


def _show(file: Path, number: int, refused: RefusedRequest, command: str, *, as_json: bool) -> None:
    at, size, client = refused.at.isoformat(timespec="milliseconds"), len(refused.request.body), refused.request.client
    if as_json:
        head = {"number": number, "at": at, "reason": refused.reason}
        print_json({**head, "client": client, "bytes": size, "file": str(file), "try": command})
    else:
        print_line(f"{number}  {at}  {refused.reason}  {size} bytes from {client}")
        print_line(f"    {command}")


def _row(one: Configured) -> list[object]:
    policy = one.webhook.policy
    topics = ", ".join(one.topics) if len(one.topics) <= _FEW else f"{len(one.topics)} topics"
    keys = ", ".join(f"{key.name} ({_validity(key)})" for key in one.keys)
    kind = f"{one.webhook.kind} ({one.preset})" if one.preset else one.webhook.kind
    return [
        one.webhook.integration,
        kind,
        one.path,
        one.scheme,
        keys,
        topics,
        policy.success,
        policy.unverified,
        policy.invalid,
    ]


def _validity(key: Key) -> str:
    until = f" until {key.not_after.isoformat()}" if key.not_after else ""
    begun = f" from {key.not_before.isoformat()}" if key.not_before else ""
    return f"{'active' if is_active(key, now()) else 'not active'}{begun}{until}"
