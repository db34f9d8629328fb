"""``docs/reference/logging.md``: every log action with its fields, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.markdown import package_of, page, table

_INTRO: Final = """\
The pipeline writes log lines to stderr: aligned text on a terminal, JSON elsewhere (`[logging]`,
[settings](settings.md)). The field `event` is the action; the table below lists every action. As in the audit log, the
name of an action begins with the thing, and then says what happened to it. Scripts may rely on the actions and fields:
new ones are added, but none is removed.

Every line has the fields `timestamp` (UTC), `level`, `logger` and `event`. Other fields depend on the line:

- **Jobs**: `trace_id`, `integration`, `job_guid`, and usually `attempt`. The trace id is the same in every process,
  from the webhook to the callback. It is missing only while the job's announcement cannot be read.
- **Webhooks**: `trace_id` and `span_id`. If a verified webhook is refused, also `event_id` and `subject`, unless the
  sender chooses the text of the subject.
- **Records**: those of these fields that the record itself has.
- **Errors**: `code`, one of the [error codes](errors.md).

Libraries write lines of their own, whose `event` is a sentence. No line contains a card number, a secret, a token or
the query of a URL: text that looks like one is masked ([security](../explanation/security.md))."""

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_LOGGERS: Final = ("log", "_log")


@dataclass
class _Action:
    """One log action, with its levels, packages and fields."""

    levels: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    fields: dict[str, None] = field(default_factory=dict)


def render(src: Path) -> str:
    """Return the page."""
    found: dict[str, _Action] = {}
    for path in sorted(src.rglob("*.py")):
        package = package_of(path, src)
        for name, levels, call in _lines(ast.parse(path.read_text("utf-8"))):
            action = found.setdefault(name, _Action())
            action.levels |= levels
            action.packages.add(package)
            action.fields |= dict.fromkeys(one.arg for one in call.keywords if one.arg and one.arg != "exc_info")
    return page("Log lines", _INTRO, table(("Action", "Level", "Package", "Fields"), _rows(found)))


def _rows(found: Mapping[str, _Action]) -> Iterator[tuple[str, str, str, str]]:
    for name, action in sorted(found.items()):
        levels = " or ".join(level for level in _LEVELS if level in action.levels)
        yield f"`{name}`", levels, ", ".join(sorted(action.packages)), ", ".join(f"`{one}`" for one in action.fields)


def _lines(tree: ast.Module) -> Iterator[tuple[str, set[str], ast.Call]]:
    """Yield action, levels and call of each log line."""
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        chosen = _chosen_levels(scope)
        for call in ast.walk(scope):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                levels = chosen.get(call.func.id, set()) if isinstance(call.func, ast.Name) else _levels(call.func)
                if levels:
                    yield str(call.args[0].value), levels, call


def _chosen_levels(scope: ast.AST) -> dict[str, set[str]]:
    """Return the levels of names such as ``write`` in ``write = log.error if grave else log.warning``."""
    found = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _levels(node.value.body) | _levels(node.value.orelse)
    return found


def _levels(node: ast.expr) -> set[str]:
    """Return the level of an expression such as ``log.error``; empty for any other expression."""
    of_a_logger = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _LOGGERS
    return {node.attr} & {*_LEVELS} if of_a_logger and isinstance(node, ast.Attribute) else set()
