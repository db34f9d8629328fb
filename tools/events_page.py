"""``docs/reference/events/``: the catalogue of events, one page per category, from the contracts and their schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.contracts.sensitive import SENSITIVE_MARK
from pipeline.contracts.weavr import BY_TYPE
from pipeline.contracts.weavr.wire import KNOWN_VALUES, PATTERN
from tools.contract_table import CONTRACTS, Contract
from tools.examples import example
from tools.markdown import anchor, page, table
from tools.schemas import contract_schemas
from tools.wire_schema import Schema, fields

_INTRO: Final = """\
These are all kinds of events in the topics. Weavr names a kind by the path that it appends to the webhook's URL; we
name it by `ce_type`. The value of a record is the body as received, so each field has the partner's form: ids are text,
times are text or numbers of epoch milliseconds, and money is `{currency, amount}` with an amount of either form. At any
time, a partner may add fields, and values that are not listed here. See [topics](../topics.md) for headers, keys and
order, [contracts](../contracts.md) for what may change, and [schemas/index.json](../../../schemas/index.json) for a
machine-readable list.

Logs, metrics and the output of `pipeline events` mask **sensitive** fields."""

_SHOWN: Final = 12
"""Maximum number of listed known values; the schema has all of them."""


def render() -> dict[str, str]:
    """Return each page by its name. The page ``index`` lists the others."""
    schemas = contract_schemas()
    groups: dict[str, list[Contract]] = {}
    for contract in CONTRACTS:
        if contract.topic:
            groups.setdefault(_group(contract), []).append(contract)
    pages = {_name(group): _category(group, members, schemas) for group, members in groups.items()}
    return pages | {"index": page("Events", _INTRO, *(_index(*group) for group in groups.items()))}


def _name(group: str) -> str:
    return group.lower().replace(" ", "-")


def _title(group: str) -> str:
    return group.replace("Ibans", "IBANs")


def _category(group: str, members: list[Contract], schemas: Mapping[str, Schema]) -> str:
    topics = [f"`{topic}`" for topic in dict.fromkeys(str(one.topic) for one in members)]
    intro = f"In {', '.join(topics)}. [All events](index.md) describes what all events have in common."
    return page(f"Events: {_title(group)}", intro, *(_section(one, schemas[one.name]) for one in members))


def _index(group: str, members: list[Contract]) -> str:
    file = f"{_name(group)}.md"
    rows = [(f"[`{one.name}`]({file}#{anchor(one.name)})", f"`{one.topic}`", _about(one)) for one in members]
    return f"## [{_title(group)}]({file})\n\n" + table(("Event", "Topic", "Says"), rows)


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
        "Schema": f"[`{contract.ident}`](../../../schemas/{contract.schema})",
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
