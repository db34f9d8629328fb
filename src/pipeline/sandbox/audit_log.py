"""Is the audit log unbroken, and what does it say? Read with the standard library alone (docs/audit.md)."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pipeline.sandbox.verify import Finding

_GENESIS: Final = "0" * 64
_HASH: Final = b',"hash":"'


def read_audit_log(store: Path) -> tuple[dict[str, list[str]], list[Finding]]:
    """Return the steps of each job in their order, and what is wrong with the chains. Blocking.

    Args:
        store: Folder of the local job store.
    """
    steps: defaultdict[str, list[str]] = defaultdict(list)
    findings: list[Finding] = []
    for partition in sorted((store / "audit").glob("*/*")):
        try:
            for event in _chain(partition):
                if event["event"].get("job_guid"):
                    steps[event["event"]["job_guid"]].append(event["event"]["action"])
        except (_Broken, ValueError, KeyError, OSError) as error:
            place = f"{partition.parent.name}/{partition.name}"
            findings.append(Finding(None, f"audit log, partition {place}: {error}"))
    return dict(steps), findings


class _Broken(Exception):
    """The chain does not hold."""


def _chain(partition: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of one partition, every line checked against the line before."""
    running, seen = _GENESIS, set[str]()
    for number, segment in enumerate(sorted(partition.glob("*/*.jsonl"))):
        lines = segment.read_bytes().splitlines(keepends=True)
        parsed = []
        for place, line in enumerate(lines, start=1):
            text, _, end = line.rpartition(_HASH)
            running = hashlib.sha256(running.encode() + text).hexdigest()
            if end != f'{running}"}}\n'.encode():
                raise _Broken(f"segment {segment.name}, line {place}: the hash does not follow from the line before")
            parsed.append(json.loads(line))
        if [line["kind"] for line in parsed] != ["segment", *["event"] * (len(parsed) - 2), "closing"]:
            raise _Broken(f"segment {segment.name} is not a header, events and a closing line")
        if parsed[0]["segment"] != number:
            raise _Broken(f"segment {number} is missing")
        for event in parsed[1:-1]:
            if event["id"] in seen:
                raise _Broken(f"segment {segment.name}: event {event['id']} stands twice")
            seen.add(event["id"])
            yield event
