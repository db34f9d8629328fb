"""Every command that docs/how-to/runbook.md quotes is run as it is written there, against a real store and broker.

A few commands cannot run here; :data:`PARSED` names them and says why. Their arguments are parsed, so that an option
that does not exist is found. Where a command asks a person, the test says yes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import INTEGRATION, Flow, Tables, running_flow
from support.members import until
from support.paths import ROOT
from support.prefork import Prefork
from support.quoted_commands import Quoted, quoted

from pipeline.contracts import Topic
from pipeline.sandbox import CardFile, Job
from pipeline.sandbox.faults import Fault

COMMANDS: Final = quoted((ROOT / "docs" / "how-to" / "runbook.md").read_text("utf-8"))

PARSED: Final = {
    "pipeline sources capture acme --for 10m": "it waits ten minutes for refused requests",
    "pipeline events rewind --group GROUP --to TIME": "it needs a stopped subscriber: tests/broker/test_events_cli.py",
    "pipeline events rewind --group GROUP --topic TOPIC --to earliest": "the same",
    "pipeline events rewind --group GROUP --topic TOPIC --to earliest --execute": "the same",
    "pipeline topics skip --group GROUP --topic TOPIC --partition P --offset O": (
        "it needs a damaged batch: tests/unit/cli/test_topics.py"
    ),
}
"""Commands that cannot run here, and why."""

IN_ORDER: Final = sorted(COMMANDS, key=lambda quote: "--all-open" in quote.arguments)
"""What ends all open jobs comes last."""

_EXAMPLES: Final = {
    "NAME": INTEGRATION,
    "GROUP": "process",
    "GROUP.dead-letter": "process.dead-letter",
    "TIME": "2026-01-01T00:00:00Z",
    "TOPIC": Topic.BATCH_REQUESTED.value,
    "P": "0",
    "O": "0",
}
"""What replaces the placeholders that every command may have."""

_JOBS: Final = {"notify": "refused", "cancel": "held", "retry": "held", "result": "kept"}
"""Which of the jobs a command gets as JOB; the others get the one that is done."""

_FAULTS: Final = {
    "done": None,
    "kept": None,
    "refused": Fault(target="callback", kind="status", status=400),
    "held": Fault(target="input", kind="status", status=503, times=0),
}
_ENDS: Final = {"done": "confirmed.json", "kept": "confirmed.json", "refused": "refused.json"}
_NEW_HOST: Final = "files.example"


@dataclass
class World:
    """A flow with a job in each state that the commands need.

    Attributes:
        jobs: ``done``; ``kept`` has failed half way, so its parts are kept; ``refused``: ECS refused the callback;
            ``held``: its input cannot be read now.
        quarantined: Id of a webhook in quarantine, which fits since the settings were fixed.
    """

    flow: Flow
    folder: Path
    jobs: dict[str, Job]
    quarantined: str = ""

    def argv(self, quote: Quoted) -> list[str]:
        """Return the command line, with something real for each placeholder."""
        job = self.jobs[_JOBS.get(quote.names[-1], "done")]
        examples = _EXAMPLES | {"JOB": str(job.guid), "ID": self.quarantined, "FILE": str(self.folder / "result.csv")}
        words = (examples.get(word, word) for word in quote.arguments)
        return [*quote.names, *words, *(["--yes"] if quote.asks and "--yes" not in quote.arguments else [])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    apache_kafka: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("runbook")
    (folder / "results").mkdir()
    limits: Tables = {"limits": {"chunk_records": 2}}
    async with running_flow(apache_kafka, folder, launch=prefork, integration=limits) as flow:
        found = World(flow, folder / "results", {})
        for name, fault in _FAULTS.items():
            if fault is not None:
                flow.sandbox.faults.add(fault)
            count = 3 if name == "kept" else None
            job = found.jobs[name] = await flow.send(cards=CardFile(records=5), record_count=count)
            await _ended(flow, job, _ENDS.get(name))
        await flow.send(override={"input_file_url": f"https://{_NEW_HOST}/input.csv"})
        host = f'"127.0.0.1:{flow.sandbox.ecs.base_url.rpartition(":")[2]}"'
        flow.config.write_text(flow.config.read_text().replace(f"input = [{host}]", f'input = [{host}, "{_NEW_HOST}"]'))
        code, said, problem = await flow.command("quarantine", "list", "--json")
        assert code == 0, problem
        found.quarantined = json.loads(said.splitlines()[0])["id"]
        yield found


async def _ended(flow: Flow, job: Job, end: str | None) -> None:
    if end is not None:
        await until(lambda: end in flow.stored(job), 60.0)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("quote", IN_ORDER, ids=str)
async def test_a_command_of_the_runbook_works(world: World, quote: Quoted) -> None:
    """It ends with code 0; of one that cannot run here, names and options exist."""
    argv = world.argv(quote)
    if quote.text in PARSED:
        quote.command.make_context(quote.names[-1], argv[len(quote.names) :], resilient_parsing=False)
    elif not quote.is_mention:
        if _JOBS.get(quote.names[-1]) == "held" and "JOB" in quote.arguments:
            await until(lambda: bool(world.flow.markers(world.jobs["held"], "due")), 60.0)
        code, said, problem = await world.flow.command(*argv)
        assert code == 0, f"{said}\n{problem}"


def test_what_only_is_parsed_is_in_the_runbook() -> None:
    """The list of exceptions does not outlive what it excuses."""
    assert set(PARSED) <= {quote.text for quote in COMMANDS}
