"""A reader types the snippets of a page, in their order, in one folder. Each of them works.

Settings pass ``pipeline config check``, Python runs, and YAML is read. Commands run if they need no server; the names,
options and arguments of the others are checked. What a page marks as ``# Example only: WHY`` is not run.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml
from click.testing import CliRunner
from support.brokers import Broker
from support.logging_state import logging_restored
from support.paths import ROOT
from support.quoted_commands import parsed
from support.snippets import EXAMPLE_ONLY, Snippet, indented_blocks_of, snippets_of

from pipeline.app import PORTS
from pipeline.cli.root import cli
from pipeline.jobs.part_encryption import new_part_key
from pipeline.jobs.processors.loading import ENTRY_POINT_GROUP as PROCESSORS
from pipeline.subscriber import Subscriber
from pipeline.webhooks.sources.loading import ENTRY_POINT_GROUP as SOURCES

__all__ = ["logging_restored"]

HOW_TO: Final = sorted((ROOT / "docs" / "how-to").glob("*.md"))
REFERENCE: Final = [ROOT / "docs" / "reference" / f"{name}.md" for name in ("processors", "senders", "sandbox")]
PAGES: Final = [page for page in [ROOT / "README.md", *HOW_TO, *REFERENCE] if snippets_of(page)]
LANGUAGES: Final = {"python", "sh", "text", "toml", "yaml"}

SETTINGS: Final = """\
[kafka]
bootstrap_servers = "127.0.0.1:9092"

[parts]
keys = [{ id = "first", file = "secrets/part-key" }]
"""
INTEGRATIONS: Final = {
    "ecs": """
[ecs.acme.webhook]
scheme = "shared-secret"
secrets = [{ file = "secrets/acme-webhook" }]

[ecs.acme.callback]
token_file = "secrets/acme-token"

[ecs.acme.hosts]
input = ["files.example.com"]
result = ["files.example.com"]
callback = ["api.example.com"]
""",
    "weavr": """
[weavr.acme]
secrets = [{ file = "secrets/acme-weavr-key" }]
path_secret_file = "secrets/acme-weavr-path"
""",
}
"""The integrations that a reader of a page has, unless the page makes them."""

CARDS: Final = "card_number,points\n4111111111111111,700\n5555555555554444,x\n"
EXAMPLE: Final = ROOT / "schemas" / "examples" / "weavr.managed_cards.authorisations.v1.json"

OFFLINE: Final = {("cards", "run"), ("config", "check"), ("integration", "new")}
"""Commands that run here: they need neither a broker nor a sandbox."""

OUTSIDE: Final = {"curl", "pip"}
"""Programs that need a server: nothing of them is ours to check."""

TARGETS: Final = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


class Reader:
    """Types the snippets of one page in a folder of their own."""

    def __init__(self, folder: Path, page: str, broker: Callable[[], Broker]) -> None:
        self.folder = folder
        self.settings = folder / "pipeline.toml"
        self._broker = broker
        self._names: dict[str, Any] = {"__name__": "__main__"}
        made = [text for name, text in INTEGRATIONS.items() if f"integration new {name} acme" not in page]
        self.settings.write_text(SETTINGS + "".join(made))
        (folder / "secrets").mkdir()
        for name in re.findall(r"(?:--input )(\w+\.csv)", page):
            (folder / name).write_text(CARDS)
        shutil.copy(EXAMPLE, folder / "authorisation.json")

    def type(self, snippet: Snippet) -> None:
        """Do with a snippet what its language asks for."""
        if snippet.file and snippet.language == "python":
            (self.folder / Path(snippet.file).name).write_text(snippet.text)
        getattr(self, f"_{snippet.language}")(snippet.text)

    def _toml(self, text: str) -> None:
        """Put the tables into the settings, in the place of tables with the same name; or read a package's metadata."""
        tables = tomllib.loads(text)
        if "project" in tables:
            assert set(tables["project"]["entry-points"]) <= {SOURCES, PROCESSORS}
            return
        own = self.settings.read_text()
        for name in re.findall(r"^\[+([\w.]+)\]", text, re.MULTILINE):
            own = re.sub(rf"^\[+{re.escape(name)}[\].](?:.*\n)(?:(?!\[).*\n)*", "", own, flags=re.MULTILINE)
        self.settings.write_text(f"{own}\n{text}")
        self._run("config", "check")

    def _yaml(self, text: str) -> None:
        assert isinstance(yaml.safe_load(text), dict)

    def _text(self, text: str) -> None:
        """It is what a command prints."""

    def _python(self, text: str) -> None:
        if "kafka-0:9092" in text:
            text = text.replace("kafka-0:9092", self._broker().bootstrap_servers)
        code = compile(text, "snippet.py", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, self._names)  # noqa: S307 - the text is a page of this project
        if inspect.iscoroutine(done):
            asyncio.run(done)

    def _sh(self, text: str) -> None:
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("("):
                self._shell(line)
                continue
            words = shlex.split(line, comments=True)
            while "&" in words:
                self._command(words[: words.index("&")])
                words = words[words.index("&") + 1 :]
            if words:
                self._command(words)

    def _shell(self, line: str) -> None:
        subprocess.run(["sh", "-c", line], cwd=self.folder, input="a-key-of-weavr", text=True, check=True)

    def _command(self, words: list[str]) -> None:
        while "=" in words[0]:
            words = words[1:]
        program, *rest = words
        if program == "make":
            assert set(rest[:1]) <= set(TARGETS)
        elif program == "python":
            assert (ROOT / rest[0]).exists()
        elif program == "pipeline":
            self._pipeline(rest)
        else:
            assert program in {*OUTSIDE, "export"}, f"{program}: a test does not know this program"

    def _pipeline(self, words: list[str]) -> None:
        if words[0] == "--config":
            words = words[2:]
        command = parsed(shlex.join(["pipeline", *words]))
        if command.names[:2] in OFFLINE:
            self._run(*words)
            return
        with contextlib.suppress(click.exceptions.Exit):  # --help ends it
            command.command.make_context(command.names[-1], list(command.arguments))

    def _run(self, *words: str) -> None:
        self._put_secrets()
        done = CliRunner().invoke(cli, words, prog_name="pipeline", obj=PORTS)
        assert done.exit_code == 0, done.output

    def _put_secrets(self) -> None:
        """Write each secret file that the settings name and that is missing."""
        for name in re.findall(r'"(secrets/[^"]+)"', self.settings.read_text()):
            path = self.folder / name
            if not path.exists():
                path.write_text(new_part_key() if name.endswith("part-key") else "0123456789abcdef0123456789abcdef")
                path.chmod(0o600)


@pytest.fixture(autouse=True)
def _logging(logging_restored: None) -> None:
    """Commands configure logging."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[Path], Reader]:
    """Give a page a reader, whose subscribers stop as soon as they are ready."""
    for name in [name for name in os.environ if name.startswith("PIPELINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    whole_run = Subscriber.run

    async def run_until_ready(subscriber: Subscriber) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(whole_run(subscriber))
            while not (subscriber.ready or running.done()):  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.02)
            subscriber.stop()

    monkeypatch.setattr(Subscriber, "run", run_until_ready)

    def reader_of(page: Path) -> Reader:
        return Reader(tmp_path, page.read_text("utf-8"), lambda: request.getfixturevalue("embedded_broker"))

    return reader_of


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_reader_who_types_the_snippets_of_a_page_succeeds(page: Path, reader: Callable[[Path], Reader]) -> None:
    """Whatever fails is named by page and line."""
    one = reader(page)
    for snippet in snippets_of(page):
        if snippet.runs:
            try:
                one.type(snippet)
            except BaseException as error:
                error.add_note(str(snippet))
                raise


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_snippet_names_its_language(page: Path) -> None:
    assert [str(one) for one in snippets_of(page) if one.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", HOW_TO, ids=[page.stem for page in HOW_TO])
def test_no_snippet_of_a_guide_hides_behind_its_indentation(page: Path) -> None:
    """The other tests would not see it."""
    assert indented_blocks_of(page) == []


def test_an_example_that_does_not_run_says_why_and_imports_what_exists() -> None:
    marked = [snippet for page in PAGES for snippet in snippets_of(page) if not snippet.runs]
    for snippet in marked:
        assert snippet.text.splitlines()[0].removeprefix(EXAMPLE_ONLY)
        if snippet.language == "python":
            imports = [one for one in ast.walk(ast.parse(snippet.text)) if isinstance(one, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(body=imports, type_ignores=[]), str(snippet), "exec"), {})  # type: ignore[arg-type]  # noqa: S102
