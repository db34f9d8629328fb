"""``docs/reference/errors.md``: every error code with its messages, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.markdown import package_of, page, table

_INTRO: Final = """\
Every error has a stable code. Log lines have it in the field `code`, the command line prints
`error: <code>: <message>`, and failed jobs and dead letters have it as their reason. A code keeps its meaning, but the
message may change. In the messages below, `…` marks a value.

| Kind | What the pipeline does |
| --- | --- |
| permanent | repeating cannot help: the job fails with this reason, or the record is dead-lettered |
| transient | retried with growing pauses, within the job's deadline |
| overloaded | retried after a pause; this is never counted as a try |
| lease lost | the work is dropped silently: another worker does it |
| fatal | the process stops with this message |
| usage | the command does nothing: its arguments are wrong |
| outcome | the result of a callback |"""

_BASES: Final = {
    "PermanentError": "permanent",
    "TransientError": "transient",
    "Overloaded": "overloaded",
    "LeaseLost": "lease lost",
    "FatalError": "fatal",
    "MalformedUrl": "permanent",
    "Answer": "outcome",
    "UsageRefused": "usage",
}
"""Kinds of errors by class. MalformedUrl has the codes of AddressRefused, and Answer those of callbacks."""

_CODE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")


@dataclass
class _Source:
    """The facts from the source.

    Attributes:
        trees: Each module.
        kinds: Kind of error for each error class, and for each function that makes errors.
    """

    trees: dict[Path, ast.Module]
    kinds: dict[str, str] = field(default_factory=lambda: dict(_BASES))


def render(src: Path) -> str:
    """Return the page."""
    paths = [path for path in sorted(src.rglob("*.py")) if path.name != "testing.py"]
    source = _Source({path: ast.parse(path.read_text("utf-8")) for path in paths})
    _learn_classes(source)
    rows: dict[str, tuple[str, str, list[str]]] = {}
    for path, tree in source.trees.items():
        package = package_of(path, src)
        for code, kind, text in _codes(tree, source):
            _, _, texts = rows.setdefault(code, (kind, package, []))
            if text and text not in texts:
                texts.append(text)
    cells = ((f"`{code}`", kind, package, " / ".join(texts)) for code, (kind, package, texts) in sorted(rows.items()))
    return page("Error codes", _INTRO, table(("Code", "Kind", "Package", "Says"), cells))


def _learn_classes(source: _Source) -> None:
    """Find every subclass of the bases, and every function that makes an error with a given code."""
    classes = [node for tree in source.trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    grown = True
    while grown:
        grown = False
        for node in classes:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            known = next((source.kinds[base] for base in bases if base in source.kinds), None)
            if known and node.name not in source.kinds:
                source.kinds[node.name] = known
                grown = True
    for function in (node for tree in source.trees.values() for node in ast.walk(tree)):
        if isinstance(function, ast.FunctionDef) and any(one.arg == "code" for one in function.args.args):
            kind = next((source.kinds[name] for name in _called(function) if name in source.kinds), None)
            if kind:
                source.kinds.setdefault(function.name, kind)


def _called(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Call):
            yield _name(one.func)


def _name(func: ast.expr) -> str:
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) else ""


def _codes(tree: ast.Module, source: _Source) -> Iterator[tuple[str, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in source.kinds:
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and _name(call.func) == "__init__":
                    yield from _code(call, source.kinds[node.name])
        elif isinstance(node, ast.Call) and _name(node.func) in source.kinds:
            yield from _code(node, source.kinds[_name(node.func)])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _default(node)


def _code(call: ast.Call, kind: str) -> Iterator[tuple[str, str, str]]:
    given = [*call.args, *(one.value for one in call.keywords if one.arg in ("code", "message", "detail"))]
    for index, argument in enumerate(given):
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and _CODE.fullmatch(argument.value):
            text = text_of(given[index + 1]) if index + 1 < len(given) else ""
            yield argument.value, kind, text
            return


def _default(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str, str]]:
    """Yield the default of a parameter ``code`` in an error's constructor."""
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if argument.arg == "code" and isinstance(default, ast.Constant) and isinstance(default.value, str):
            yield default.value, "fatal", ""


def text_of(node: ast.expr) -> str:
    """Return a message with `…` for each placeholder; empty if the message is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""
