"""``docs/reference/events.md``: the catalogue of events, from the table of contracts and their schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.contracts.sensitive import SENSITIVE_MARK
from pipeline.contracts.weavr import BY_TYPE
from pipeline.contracts.weavr.wire import KNOWN_VALUES, PATTERN
from tools.contract_table import CONTRACTS, Contract
from tools.examples import example
from tools.markdown import page, table
from tools.schemas import contract_schemas
from tools.wire_schema import Schema, fields

_INTRO: Final = """\
What the topics carry, kind by kind. The path behind the webhook's own is Weavr's name for a kind of event; `ce_type` is
ours. The value is the body as received, so a field reads as the partner writes it: ids are text, times are text or
numbers of epoch milliseconds, money is `{currency, amount}` with either. Unknown fields may come at any time, and
values that are not among the known ones. Headers, keys and order: [topics.md](topics.md). What may change:
[contracts.md](contracts.md). For programs: [schemas/index.json](../../schemas/index.json).

**Sensitive** fields are for few eyes: logs, metrics and the displays of `pipeline events` mask them."""

_SHOWN: Final = 12
"""Known values that are listed; the schema has all."""


def render() -> str:
    """Return the page."""
    schemas = contract_schemas()
    published = [contract for contract in CONTRACTS if contract.topic]
    parts = [_section(contract, schemas[contract.name]) for contract in published]
    return page("Events", _INTRO, "## Index", *_index(published), *parts)


def _index(published: list[Contract]) -> Iterator[str]:
    groups: dict[str, list[Contract]] = {}
    for contract in published:
        groups.setdefault(_group(contract), []).append(contract)
    for group, members in groups.items():
        rows = [(f"[`{one.name}`](#{_anchor(one.name)})", f"`{one.topic}`", _about(one)) for one in members]
        yield f"### {group}\n\n" + table(("Event", "Topic", "Says"), rows)


def _group(contract: Contract) -> str:
    if contract.name in BY_TYPE:
        return BY_TYPE[contract.name].category.replace("-", " ").capitalize()
    return "Audit log" if contract.name == "audit.events" else "Card batch jobs"


def _about(contract: Contract) -> str:
    return " ".join((contract.model.__doc__ or "").split("\n\n")[0].replace("``", "`").split())


def _section(contract: Contract, schema: Schema) -> str:
    facts = {
        "Path": f"`{contract.path}`" if contract.path else "",
        "Event types": ", ".join(f"`{one}`" for one in contract.types) if len(contract.types) > 1 else "",
        "Topic": f"`{contract.topic}`{', **sensitive**' if contract.sensitive else ''}",
        "Key": ", else ".join(f"`{key}`" for key in contract.keys),
        "Schema": f"[`{contract.ident}`](../../schemas/{contract.schema})",
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)
    rows = [_row(name, field, required=required) for name, field, required in fields(schema)]
    shown = json.dumps(example(contract), indent=2, ensure_ascii=False)
    example_of_it = f"<details><summary>Example</summary>\n\n```json\n{shown}\n```\n\n</details>"
    columns = table(("Field", "Type", "Required", "Holds"), rows)
    return "\n\n".join([f"## {contract.name}", _about(contract), lines, columns, example_of_it])


def _row(name: str, field: Mapping[str, Any], *, required: bool) -> tuple[str, ...]:
    return f"`{name}`", _type(field), "yes" if required else "no", " ".join(_holds(field))


def _type(field: Mapping[str, Any]) -> str:
    kinds = field.get("type", "any")
    names = [kinds] if isinstance(kinds, str) else [kind for kind in kinds if kind != "null"]
    inner = field.get("items", {})
    return " or ".join(f"array of {_type(inner)}" if name == "array" and "type" in inner else name for name in names)


def _holds(field: Mapping[str, Any]) -> Iterator[str]:
    if field.get(SENSITIVE_MARK):
        yield "**Sensitive.**"
    if field.get("deprecated"):
        yield "Deprecated."
    if "description" in field:
        yield field["description"]
    inner = field.get("items", field)
    known = inner.get(KNOWN_VALUES) or inner.get("enum") or ()
    if known:
        more = f", … ({len(known)} in all)" if len(known) > _SHOWN else ""
        yield ", ".join(f"`{value}`" for value in known[:_SHOWN]) + more
    if "format" in inner:
        yield f"format `{inner['format']}`"
    if "pattern" in inner or PATTERN in inner:
        yield f"pattern `{inner.get('pattern', inner.get(PATTERN))}`"


def _anchor(title: str) -> str:
    return "".join(sign for sign in title.lower() if sign.isalnum() or sign in "-_ ")
