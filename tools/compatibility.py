"""The compatibility gate: compares the contracts with the last release.

``python -m tools.compatibility`` names what breaks, and exits 1; with ``--release`` the contracts of today become the
released ones, unless something breaks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tools import schemas
from tools.schema_changes import Change, breaking

COMMAND: Final = "make release"
_RELEASED: Final = ("events/", "examples/", "callback.", "problem.", "index.json", "asyncapi.json")
"""The files of a release to keep. OpenAPI follows from them and from the code."""
_REMEDIES: Final[Mapping[str, str]] = {
    "field-removed": "keep it, optional; or publish a new version",
    "required-dropped": "publish a new version",
    "required-added": "make it optional; or publish a new version",
    "type-widened": "publish a new version",
    "type-narrowed": "keep the former types; or publish a new version",
    "type-changed": "publish a new version",
    "values-widened": "publish a new version, and make the enumeration open there",
    "values-narrowed": "keep the former values; or publish a new version",
    "rule-changed": "keep the former rule; or publish a new version",
    "additional-changed": "keep it as it was; or publish a new version",
    "sensitive-dropped": "keep the name in pipeline.contracts.sensitive, and topics sensitive",
    "id-changed": "keep the $id; a new version is a new file beside the former one",
    "event-removed": "keep the event; one that comes no more is marked deprecated",
    "version-lowered": "versions only grow",
    "topic-changed": "keep the topic; move readers by a new event type",
    "key-changed": "keep the key: order and partition of each entity depend on it",
    "path-changed": "keep it: the path is the event",
    "file-changed": "keep the file's name within a version",
    "topic-removed": "keep the topic as long as anybody reads it",
    "partitions-changed": "keep the number: keys would move to other partitions",
    "retention-shortened": "keep records at least as long as before",
}


def findings(released: Path, files: Mapping[str, str]) -> list[str]:
    """Return one line for each incompatible change: file, JSON pointer, rule, change, remedy.

    Args:
        released: The folder of the last release; if it is missing, nothing is incompatible.
        files: Each generated file's text by its path in the project.
    """
    found: list[str] = []
    for path in sorted(released.glob("**/*.json")):
        name = str(path.relative_to(released))
        former = json.loads(path.read_text("utf-8"))
        text = files.get(f"{schemas.FOLDER}/{name}")
        current = json.loads(text) if text else {}
        found += [_line(name, change) for change in _changes(name, former, current)]
    return found


def _changes(name: str, former: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the incompatible changes in one file: a schema, the index, or the headers in AsyncAPI."""
    if name == "index.json":
        yield from index_changes(former, current)
    elif name == "asyncapi.json":
        headers = current.get("components", {}).get("schemas", {})
        for kind, schema in former["components"]["schemas"].items():
            for change in breaking(schema, headers.get(kind, {})):
                yield replace(change, pointer=f"/components/schemas/{kind}{change.pointer}")
    elif not name.startswith("examples/"):
        yield from breaking(former, current)


def index_changes(released: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the incompatible changes in the index: topics of events, and properties of topics."""
    for group in ("events", "bodies"):
        for name, former in released[group].items():
            now = current.get(group, {}).get(name)
            if now is None:
                yield Change(f"/{group}/{name}", "event-removed", f"`{name}` was promised")
            else:
                yield from _moved(former, now, f"/{group}/{name}")
    for name, former in released["topics"].items():
        now = current.get("topics", {}).get(name)
        if now is None:
            yield Change(f"/topics/{name}", "topic-removed", f"`{name}` was promised")
        else:
            yield from _kept(former, now, f"/topics/{name}")


def release(released: Path, files: Mapping[str, str]) -> list[str]:
    """Release the current contracts. If there are incompatible changes, return them and change nothing."""
    found = findings(released, files)
    if found:
        return found
    for name, text in files.items():
        inner = name.removeprefix(f"{schemas.FOLDER}/")
        if inner != name and inner.startswith(_RELEASED):
            path = released / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return []


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true", help="take the contracts of today for released")
    act = release if parser.parse_args(arguments).release else findings
    found = act(schemas.RELEASED, schemas.render())
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


def _moved(former: Mapping[str, Any], now: Mapping[str, Any], pointer: str) -> Iterator[Change]:
    for name in ("topic", "key", "path"):
        if former.get(name) != now.get(name):
            yield Change(f"{pointer}/{name}", f"{name}-changed", f"{former.get(name)} became {now.get(name)}")
    if now["version"] < former["version"]:
        yield Change(f"{pointer}/version", "version-lowered", f"{former['version']} became {now['version']}")
    if now["version"] == former["version"]:
        for name, rule in (("dataschema", "id-changed"), ("schema", "file-changed")):
            if former.get(name) != now.get(name):
                yield Change(f"{pointer}/{name}", rule, f"{former.get(name)} became {now.get(name)}")


def _kept(former: Mapping[str, Any], now: Mapping[str, Any], pointer: str) -> Iterator[Change]:
    if former["sensitive"] and not now["sensitive"]:
        yield Change(f"{pointer}/sensitive", "sensitive-dropped", "the topic was for few")
    if former["key"] != now["key"]:
        yield Change(f"{pointer}/key", "key-changed", f"{former['key']} became {now['key']}")
    if former["partitions"] != now["partitions"]:
        yield Change(
            f"{pointer}/partitions", "partitions-changed", f"{former['partitions']} became {now['partitions']}"
        )
    if now["retention_ms"] < former["retention_ms"]:
        yield Change(
            f"{pointer}/retention_ms", "retention-shortened", f"{former['retention_ms']} became {now['retention_ms']}"
        )


def _line(name: str, change: Change) -> str:
    where = f"{schemas.FOLDER}/{name}#{change.pointer}"
    return f"{where}: {change.rule}: {change.text}; {_REMEDIES[change.rule]} (docs/reference/contracts.md)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
