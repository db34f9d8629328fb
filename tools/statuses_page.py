"""``docs/reference/statuses.md``: all answers of the ingress, with the members and rules of its problem documents."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.webhooks.answers import STATUSES, Status
from pipeline.webhooks.sources import ecs, findings
from tools.errors_page import text_of
from tools.markdown import page, table
from tools.openapi import PROBLEM

_INTRO: Final = """\
These are all answers that a sender of webhooks can get. A refusal is a problem document (RFC 9457,
`application/problem+json`). Its `type` is `urn:card-pipeline:problem:ROW`, where ROW is the rule in a row below, with
dashes instead of underscores. The ingress never answers 2xx for an event that it may lose, and never 4xx for a fault of
its own."""

_MEMBERS: Final = """\
## Members of a problem document

The schema is `schemas/problem.v1.json`. If a body breaks rules (`invalid`), the document names these rules, which are
listed below. Any other refusal names the rule of its row."""

_RULES: Final = """\
## Rules of bodies

A finding about the body of an announcement has one of these values as its `rule`. In the remedies, `…` marks a value. A
source of your own may use other rules."""

_MAKERS: Final = {"Finding": 1, "_refuse": 0}
"""Functions that make a finding, with the position of the rule in their arguments. The next argument is the remedy."""

_SRC: Final = Path(findings.__file__).parents[2]


def render() -> str:
    """Return the page."""
    columns = ("Status", "Rule", "Is true then", "Cause", "What to do", "Try again")
    statuses = table(columns, map(_row, STATUSES))
    members = table(("Member", "Always", "Means"), _member_rows())
    found = table(("Rule", "Remedy"), ((f"`{rule}`", " / ".join(texts)) for rule, texts in sorted(rules().items())))
    return page("Statuses", _INTRO, statuses, _MEMBERS, members, _RULES, found)


def _row(row: Status) -> tuple[str, ...]:
    codes = ", ".join(map(str, row.codes))
    rule = f'<a id="{row.anchor}"></a>`{row.answer}`'
    return codes, rule, row.meaning, row.cause, row.remedy, "yes" if row.retry else "no"


def _member_rows() -> Iterator[tuple[str, str, str]]:
    for name, schema in PROBLEM["properties"].items():
        yield f"`{name}`", "yes" if name in PROBLEM["required"] else "no", schema["description"]


class _Anything(dict[str, str]):
    """Values for the placeholders of a remedy."""

    def __missing__(self, _name: str) -> str:
        return "…"


def rules() -> dict[str, list[str]]:
    """Return the rules of all findings in the code, each with its remedies."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for rule, text in (*_of_models(), *ecs.URL_REMEDIES.items(), *_of_code()):
        if text and text not in found[rule]:
            found[rule].append(text)
    return found


def _of_models() -> Iterator[tuple[str, str]]:
    for rule, remedy in (*findings.RULES.values(), findings.OTHER):
        yield rule, remedy(_Anything())


def _of_code() -> Iterator[tuple[str, str]]:
    for path in sorted(_SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS:
                rule, *rest = node.args[_MAKERS[node.func.id] :] or [node]
                if isinstance(rule, ast.Constant) and isinstance(rule.value, str) and rest:
                    yield rule.value, text_of(rest[0])
