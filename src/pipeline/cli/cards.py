"""``pipeline cards run``: run the parser, the processor and the formatter on a local file, without Kafka."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import UsageRefused, exit_code
from pipeline.cli.local_files import Aside, plain_bytes
from pipeline.cli.output import json_option, print_json
from pipeline.errors import PipelineError
from pipeline.jobs.csv_engine import CsvError, ProcessorFailed, Summary, run_stream, use_system_allocator
from pipeline.jobs.processors import JobContext, load
from pipeline.outbound import NetworkSettings
from pipeline.settings import JobIntegration, Settings

_NOBODY: Final = UUID(int=0)


@click.group()
def cards() -> None:
    """Try an integration's CSV settings and processor on local files."""


@cards.command(
    epilog="""\b
Example:
  pipeline cards run --integration acme --input cards.csv --output result.csv
prints
  {"records": 200, "ok": 198, "failed": 2, "error": null, "sha256": "..."}
Exit 0: done. Exit 3: the file was refused; "error" has the code and the line, and no output is written.
If your processor raises an exception, stderr shows its class, file and line, and a traceback
without messages and values, which may hold card data."""
)
@click.option("--integration", required=True, help="Integration whose settings to use.")
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Card file, plain or gzip.",
)
@click.option(
    "--output",
    "target",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Result file. Written, or replaced, only when it is complete.",
)
@click.option(
    "--job-guid",
    type=click.UUID,
    help="Job GUID; the idempotency keys of the cards derive from it. Default: a new one for each run.",
)
@json_option
@pass_setup
@click.pass_context
def run(
    ctx: click.Context,
    setup: Setup,
    *,
    integration: str,
    source: Path,
    target: Path,
    job_guid: UUID | None,
    as_json: bool,
) -> None:
    """Process the cards of one file as the pipeline would. Always prints a summary as JSON."""
    del as_json
    settings = setup.settings()
    chosen = find_integration(settings, integration)
    use_system_allocator()
    try:
        summary, sha256 = asyncio.run(_run(chosen, settings.network, source, target, job_guid or uuid4()))
    except PipelineError as error:
        print_json(_report(Summary(0, 0, 0), None, error))
        click.echo(f"error: {error.code}: {error.message}", err=True)
        if isinstance(error, ProcessorFailed) and error.fault:
            click.echo("\n".join(error.fault.traceback()), err=True)
        ctx.exit(exit_code(error))
    print_json(_report(summary, sha256, None))


def find_integration(settings: Settings, name: str) -> JobIntegration:
    """Return the integration; raise UsageRefused, which lists the configured ones, if there is none of that name."""
    integrations = settings.job_integrations()
    if name not in integrations:
        known = ", ".join(sorted(integrations)) or "none"
        raise UsageRefused("integration_unknown", f"no integration {name!r} is configured; configured: {known}")
    return integrations[name]


def _report(summary: Summary, sha256: str | None, error: PipelineError | None) -> dict[str, Any]:
    line = error.line if isinstance(error, CsvError) else None
    return {
        "records": summary.records,
        "ok": summary.ok,
        "failed": summary.failed,
        "error": {"code": error.code, "line": line} if error else None,
        "sha256": sha256,
    }


async def _run(
    integration: JobIntegration, network: NetworkSettings, source: Path, target: Path, job_guid: UUID
) -> tuple[Summary, str]:
    context = JobContext(
        integration=integration.name,
        job_guid=job_guid,
        merchant_guid=_NOBODY,
        partner_reference_id="cards run",
        external_location_ids=(),
        deadline=datetime.now(UTC) + timedelta(days=1),
    )
    with Aside(target) as aside, source.open("rb") as file:
        async with load(integration.processor, network) as processor:
            summary = await run_stream(
                plain_bytes(file),
                aside.write,
                settings=integration.csv,
                limits=integration.limits,
                processor=processor,
                context=context,
                in_flight=integration.limits.chunks_in_flight,
            )
        return summary, await aside.keep()
