"""Finds changes of a schema that are incompatible for readers of the values.

Records lie in topics for days and in archives for years, and name the schema's version. So a version has readers of two
kinds: those who were made from its former text and meet new records, and those who are made from its present text and
meet old records. Only what harms neither may change within a version: new optional fields, new known values of open
enumerations, marks of sensitivity, words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.contracts.sensitive import SENSITIVE_MARK
from pipeline.contracts.weavr.wire import KNOWN_VALUES, PATTERN
from tools.wire_schema import resolved

_WORDS: Final = frozenset(
    {"$schema", "$comment", "title", "description", "examples", "default", "deprecated", KNOWN_VALUES, PATTERN}
)
_GONE_INTO: Final = frozenset(
    {"$id", "$ref", "$defs", "type", "enum", "properties", "required", "items", "additionalProperties", SENSITIVE_MARK}
)
_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


@dataclass(frozen=True, slots=True)
class Change:
    """One incompatible change.

    Attributes:
        pointer: Its location in the released schema (JSON pointer).
        rule: Stable name of the rule (docs/reference/contracts.md).
        text: The old and the new state.
    """

    pointer: str
    rule: str
    text: str


def breaking(released: Mapping[str, Any], current: Mapping[str, Any]) -> list[Change]:
    """Return the incompatible changes, in the order of the released schema; empty if all are harmless."""
    found: dict[Change, None] = {}
    if released.get("$id") != current.get("$id"):
        found[Change("/$id", "id-changed", f"{released.get('$id')} became {current.get('$id')}")] = None
    walk = _Walk(released, current, set())
    found |= dict.fromkeys(walk.compare(released, current, ""))
    return [*found]


@dataclass(frozen=True, slots=True)
class _Walk:
    released: Mapping[str, Any]
    current: Mapping[str, Any]
    seen: set[tuple[str, str]]

    def compare(self, old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
        """Yield the incompatible changes at a pointer and below it."""
        yield from _mark(old, new, pointer)  # the mark is beside the reference, not in its target
        if "$ref" in old:
            pair = (old["$ref"], new.get("$ref", pointer))
            if pair in self.seen:
                return
            self.seen.add(pair)
            pointer = old["$ref"].removeprefix("#")
        old, new = resolved(old, self.released), resolved(new, self.current)
        yield from _types(old, new, pointer)
        yield from _values(old, new, pointer)
        yield from _rules(old, new, pointer)
        yield from self._fields(old, new, pointer)
        for inner in ("items", "additionalProperties"):
            yield from self._inner(inner, old, new, pointer)

    def _fields(self, old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        had, has = old.get("required", ()), new.get("required", ())
        for name, field in before.items():
            where = f"{pointer}/properties/{_escaped(name)}"
            if name not in after:
                yield Change(where, "field-removed", f"`{name}` is promised no more")
                continue
            if name in had and name not in has:
                yield Change(where, "required-dropped", f"`{name}` was always there, now it may be missing")
            if name in has and name not in had:
                yield Change(where, "required-added", f"`{name}` may be missing in records that were written before")
            yield from self.compare(field, after[name], where)
        for name in sorted({*has} - before.keys() - {*had}):
            yield Change(
                f"{pointer}/properties", "required-added", f"`{name}` is missing in records that were written before"
            )

    def _inner(self, keyword: str, old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
        if keyword not in old and keyword not in new:
            return
        before, after = old.get(keyword, True), new.get(keyword, True)
        where = f"{pointer}/{keyword}"
        if before is False or after is False:
            if before is not after:
                verb = "are refused now" if after is False else "were refused"
                yield Change(where, "additional-changed", f"fields or elements beyond the named ones {verb}")
            return
        yield from self.compare({} if before is True else before, {} if after is True else after, where)


def _mark(old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
    if old.get(SENSITIVE_MARK) and not new.get(SENSITIVE_MARK):
        yield Change(pointer, "sensitive-dropped", "readers mask by this mark")


def _types(old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
    before, after = _kinds(old), _kinds(new)
    if before == after:
        return
    text = f"{_listed(before)} became {_listed(after)}"
    if before < after:
        yield Change(f"{pointer}/type", "type-widened", text)
    elif after < before:
        yield Change(f"{pointer}/type", "type-narrowed", text)
    else:
        yield Change(f"{pointer}/type", "type-changed", text)


def _kinds(node: Mapping[str, Any]) -> frozenset[str]:
    kinds = node.get("type", [*_TYPES])
    return frozenset({kinds} if isinstance(kinds, str) else kinds)


def _listed(kinds: frozenset[str]) -> str:
    return "any type" if kinds == _TYPES else " or ".join(sorted(kinds))


def _values(old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
    before, after = old.get("enum"), new.get("enum")
    added = [value for value in after or () if before is not None and value not in before]
    gone = [value for value in before or () if after is not None and value not in after]
    if added or (before is not None and after is None):
        yield Change(f"{pointer}/enum", "values-widened", f"{added or 'any value'} may come, of a closed enumeration")
    if gone or (before is None and after is not None):
        yield Change(f"{pointer}/enum", "values-narrowed", f"{gone or 'other values'} may be in former records")


def _rules(old: Mapping[str, Any], new: Mapping[str, Any], pointer: str) -> Iterator[Change]:
    for keyword in sorted((old.keys() | new.keys()) - _WORDS - _GONE_INTO):
        if old.get(keyword) != new.get(keyword):
            before, after = (side.get(keyword, "nothing") for side in (old, new))
            yield Change(f"{pointer}/{keyword}", "rule-changed", f"`{keyword}`: {before} became {after}")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
