"""The project's conventions, executable: each test is one of them."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from support.paths import ROOT

import pipeline
from pipeline.errors import PipelineError
from pipeline.observability import Metrics, SubscriberMetrics

SRC: Final = ROOT / "src" / "pipeline"
WRITTEN: Final = ("src", "tests", "tools", "benchmarks", "examples", "docs", "deploy", "schemas", ".ci")
MOST_LINES: Final = 400
MOST_LINES_OF_A_DECISION: Final = 60


@cache
def trees() -> dict[Path, ast.Module]:
    """Every module of the package, parsed."""
    return {path: ast.parse(path.read_text("utf-8")) for path in sorted(SRC.rglob("*.py"))}


def nodes(*, without: str) -> Iterator[ast.AST]:
    """Every node of the package's modules, but for those of the named file."""
    return (node for path, tree in trees().items() if path != SRC / without for node in ast.walk(tree))


def name_of(node: ast.expr) -> str:
    """The last name of what is called or referred to."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@cache
def all_calls() -> dict[str, list[ast.Call]]:
    """Every call of the package, by the name of what is called."""
    found: dict[str, list[ast.Call]] = {}
    for node in nodes(without=""):
        if isinstance(node, ast.Call):
            found.setdefault(name_of(node.func), []).append(node)
    return found


def calls(name: str) -> list[ast.Call]:
    """Every call of the name."""
    return all_calls().get(name, [])


def callers(name: str) -> set[str]:
    """Every module that calls the name, by its path in the package."""
    found = {id(call) for call in calls(name)}
    return {
        str(path.relative_to(SRC))
        for path, tree in trees().items()
        if any(id(node) in found for node in ast.walk(tree))
    }


def files(*suffixes: str) -> Iterator[Path]:
    """Every file that somebody wrote, by the ends of their names; none for all."""
    found = [path for folder in WRITTEN for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*found, *(path for path in sorted(ROOT.iterdir()) if path.suffix or path.name == "Makefile")]:
        if path.is_file() and "__pycache__" not in path.parts and (not suffixes or path.suffix in suffixes):
            yield path


def documents() -> list[str]:
    """Every Markdown page, by its path in the project."""
    return [str(path.relative_to(ROOT)) for path in files(".md")]


# Code


def test_no_module_is_longer_than_400_lines() -> None:
    assert _longer(trees(), MOST_LINES) == {}


def test_every_package_and_module_says_what_it_is() -> None:
    assert [str(path) for path, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_no_package_is_called_by_what_says_nothing() -> None:
    nothing = {"utils", "util", "helpers", "common", "base", "misc", "manager"}
    assert [str(path) for path in trees() if path.stem in nothing or path.parent.name in nothing] == []


def test_nothing_is_printed_past_the_command_lines_own_output() -> None:
    assert [node.lineno for node in calls("print") if isinstance(node.func, ast.Name)] == []


def test_modules_with_an_underscore_are_imported_by_their_own_package_alone() -> None:
    strangers = []
    for path, tree in trees().items():
        imports = (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        for module in imports:
            package, private, _ = module.partition("._")
            if private and not f"{'.'.join(path.relative_to(SRC.parent).parts)}".startswith(f"{package}."):
                strangers.append(f"{path.name} imports {module}")
    assert strangers == []


def test_every_name_that_a_package_offers_exists() -> None:
    packages = [importlib.import_module(name) for name in _modules()]
    missing = [
        f"{package.__name__}.{name}"
        for package in packages
        for name in getattr(package, "__all__", ())
        if not hasattr(package, name)
    ]
    assert missing == []


def test_unknown_exceptions_are_caught_where_a_comment_says_why() -> None:
    """Everywhere else `except Exception` would hide what should stop a process; each place gives its reason."""
    silent = []
    for path, tree in trees().items():
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or name_of(node.type) == "Exception"):
                explained = "# noqa: BLE001 - " in lines[node.lineno - 1]
                raised = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                if not explained and not raised:
                    silent.append(f"{path.relative_to(SRC)}:{node.lineno}")
    assert silent == []


def test_sessions_to_other_hosts_are_opened_in_outbound_alone() -> None:
    """Its guard holds for every request; the sandbox plays the partner and has sessions of its own."""
    makers = {"ClientSession", "TCPConnector", "UnixConnector", "request"}
    strangers = []
    for path, tree in trees().items():
        if path.relative_to(SRC).parts[0] in {"outbound", "sandbox"}:
            continue
        made = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and name_of(node.func) in makers]
        unguarded = (one for one in made if isinstance(one.func, ast.Name) or name_of(one.func.value) == "aiohttp")  # type: ignore[attr-defined]
        strangers += [f"{path.relative_to(SRC)}:{one.lineno}" for one in unguarded]
    assert strangers == []


def test_servers_are_those_of_webhooks_management_and_sandbox() -> None:
    strangers = []
    for path, tree in trees().items():
        imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "aiohttp")
        if any(alias.name == "web" for node in imports for alias in node.names):
            strangers.append(path.relative_to(SRC).parts[0])
    assert set(strangers) == {"http_server.py", "observability", "sandbox", "webhooks"}


# What the outside relies on


def test_every_error_code_is_on_the_page_of_errors() -> None:
    """The codes are looked for by the classes as they are at run time, not as the page's generator finds them."""
    for name in _modules():
        importlib.import_module(name)
    kinds = {cls.__name__ for cls in _descendants(PipelineError)}
    kinds = {kind for kind in kinds if not kind.startswith("_")}  # those never leave their module
    code = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
    raised = {
        argument.value
        for kind in kinds
        for call in calls(kind)
        for argument in [*call.args[:1], *(one.value for one in call.keywords if one.arg == "code")]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and code.fullmatch(argument.value)
    }
    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    assert len(raised) > 50
    assert sorted(one for one in raised if f"| `{one}` |" not in page) == []


def test_commands_reach_the_outside_world_through_ports() -> None:
    """So that a test can wrap each; a subscriber opens its own publisher, and storage tries itself."""
    assert callers("KafkaPublisher") == {"app/ports.py", "subscriber/cluster.py"}
    assert callers("open_store") == callers("open_transfers") == callers("open_notifications") == {"app/ports.py"}
    assert {path for path in callers("create") if path.partition("/")[0] not in {"storage", "sandbox"}} == {
        "audit/chain.py",
        "audit/home.py",
        "cli/commands.py",
        "cli/dead_letters.py",
        "jobs/job_store.py",
        "jobs/part_store.py",
        "jobs/rate_shares.py",
        "jobs/receipt_store.py",
        "jobs/starts.py",
    }
    members = [*calls("Consumer"), *calls("BatchConsumer")]
    assert members
    assert [call.lineno for call in members if "connect" not in {keyword.arg for keyword in call.keywords}] == []


def test_every_metric_is_written_somewhere() -> None:
    metrics = (Metrics(), SubscriberMetrics())
    names = {name for one in metrics for name in vars(one) if not name.startswith("_")} - {"registry", "build_info"}
    used = {node.attr for node in nodes(without="observability/metrics.py") if isinstance(node, ast.Attribute)}
    assert names - used == set()


# Words


def test_the_walks_of_the_architecture_page_name_what_is_there() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    packages = "webhooks|jobs|subscriber|audit|kafka|storage|outbound"
    names = re.findall(rf"`((?:{packages})\.[\w.]+)`", page)
    assert len(names) > 20
    assert [name for name in names if not _resolves(f"pipeline.{name}")] == []


def test_decision_records_are_short() -> None:
    assert _longer((ROOT / "docs/decisions").glob("[0-9]*.md"), MOST_LINES_OF_A_DECISION) == {}


def test_decision_records_are_numbered_without_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", documents())
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    path = ROOT / page
    assert [link for link in _links(path.read_text("utf-8")) if not _leads(path, link)] == []


def test_every_page_that_a_file_names_exists() -> None:
    """Messages, help texts and comments name pages as ``docs/reference/cli.md``; released schemas stay as they were."""
    named = re.compile(r"(?<![\w/.-])docs/[\w/-]+\.md\b")
    found = [
        f"{path.relative_to(ROOT)}: {page}"
        for path in files(".py", ".md", ".toml", ".yaml", ".json", ".java", "")
        if ROOT / "schemas" / "released" not in path.parents
        for page in named.findall(path.read_text("utf-8"))
        if not (ROOT / page).is_file()
    ]
    assert found == []


def test_nothing_names_a_folder_of_somebodys_machine() -> None:
    """Absolute paths that exist on one machine alone help no reader."""
    homes = re.compile(r"(?<![\w./}])/(work|root|home|farm|Users)/")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files(".py", ".md", ".toml", ".yaml", ".json", ".sh", "")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if homes.search(line) and path != Path(__file__)
    ]
    assert found == []


def test_pages_for_readers_name_no_temporary_folder() -> None:
    assert [page for page in documents() if re.search(r"(?<![\w./])/tmp/", (ROOT / page).read_text("utf-8"))] == []


def _resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def _longer(paths: Iterable[Path], most: int) -> dict[str, int]:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in paths}
    return {name: lines for name, lines in lengths.items() if lines > most}


def _modules() -> list[str]:
    found = pkgutil.walk_packages(pipeline.__path__, "pipeline.")
    return ["pipeline", *(one.name for one in found if not one.name.endswith("__main__"))]


def _descendants(cls: type[PipelineError]) -> Iterator[type[PipelineError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _descendants(child)


def _links(text: str) -> list[str]:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def _leads(page: Path, link: str) -> bool:
    if link.startswith(("https://", "mailto:")):
        return True
    target, _, anchor = link.partition("#")
    path = (page.parent / target).resolve() if target else page
    if not path.exists():
        return False
    return not anchor or anchor in _anchors(path.read_text("utf-8"))


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
