"""Retired words: none in identifiers, and fewer and fewer in prose.

``python -m tools.vocabulary`` fails on a retired word on a page of the docs, in an identifier or module name, or in a
string that is a name (a log event, a metric, an error code, a settings key). In docstrings, comments and messages it
compares the number of each word with ``tools/vocabulary.json``: a count may fall, never rise. ``--update`` writes lower
counts.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
BASELINE: Final = ROOT / "tools" / "vocabulary.json"
CODE: Final = ("src", "tests", "tools", "benchmarks", "examples")
PAGES: Final = ("docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")

IDENTIFIERS: Final = {
    "tell": "notify",
    "tells": "notifies",
    "told": "notified",
    "telling": "notification",
    "bury": "dead_letter",
    "buried": "dead_lettered",
    "judge": "decide",
    "judged": "decided",
    "verdict": "outcome, or decision",
    "stands": "existing",
    "trail": "audit_trail, or steps",
    "place": "position, location, or reader: what it is",
    "places": "positions, locations, or readers: what they are",
    "placed": "positioned",
    "mend": "fix",
    "mended": "fixed",
    "anew": "again",
    "whoever": "the actor's name",
    "lest": "so_that",
    "oftener": "more_often",
    "moments": "times",
    "guesses": "candidates",
    "deed": "action",
}
"""Retired part of an identifier -> what to say instead."""

NAMES: Final = {"Delivery": "WebhookRequest, StageMessage: what it is"}
"""Retired name -> what to say instead."""

PROSE: Final = {
    r"bur(?:y|ies|ied|ying)": "dead-letter, dead-lettered",
    r"judg(?:e[sd]?|ing)": "decide, decided",
    r"verdicts?": "outcome, decision",
    r"(?:what|who|as it|that) stands?|stands? (?:there|in|on|once|for|below|beside|behind|at)": "is, the existing …",
    r"in our stead": "instead of us",
    r"told|telling": "notified, notification",
    r"put(?:s|ting)? off": "retried, delayed",
    r"mend(?:s|ed|ing)?": "fix",
    r"(?:is|are|was|were) away": "is unavailable",
    r"anew": "again",
    r"who(?:m)?ever": "the actor's name",
    r"lest": "so that … not",
    r"oftener": "more often",
    r"deeds?": "action",
}
"""Retired words of prose, as a pattern of whole words -> what to say instead."""

WIRE_NAMES: Final = {"told"}
"""Names that released schemas and existing job stores hold: the field of card-batch.completed and the folder told/."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[_.-][a-z0-9]+)+")
_CODE: Final = re.compile(r"```.*?```|(?<!`)`[^`]+`(?!`)|^ {4}[^\n]*$", re.DOTALL | re.MULTILINE)
_PART: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def main() -> int:
    """Check, or lower the baseline."""
    parser = argparse.ArgumentParser(description="Find retired words in pages, identifiers and other prose.")
    parser.add_argument("--update", action="store_true", help="write counts that have fallen to the baseline")
    options = parser.parse_args()
    faults = [*retired_identifiers(ROOT), *retired_on_pages(ROOT)]
    found = list(retired_in_code(ROOT))
    counts, baseline = Counter(use.word for use in found), read_baseline()
    for word, count in sorted(counts.items()):
        if count > baseline.get(word, 0):
            faults += [f"{use}: {PROSE[word]}" for use in found if use.word == word]
            faults.append(
                f"{word!r} is used {count} times in docstrings, comments and messages, not {baseline.get(word, 0)}"
            )
    fallen = sorted(word for word, count in baseline.items() if counts[word] < count)
    if fallen and options.update:
        lower = {word: min(counts[word], baseline[word]) for word in sorted(baseline) if counts[word]}
        BASELINE.write_text(json.dumps(lower, indent=2) + "\n", "utf-8")
    elif fallen:
        faults.append(f"used less often now: {', '.join(fallen)}; run `python -m tools.vocabulary --update` and commit")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def read_baseline() -> dict[str, int]:
    """Return how many uses of each retired word are left, by pattern."""
    found: dict[str, int] = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    return found


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a retired word in prose."""

    word: str
    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        """Render as ``file:line: text``."""
        return f"{self.path}:{self.line}: {self.text}"


def retired_identifiers(root: Path) -> Iterator[str]:
    """Yield one line for each retired word in a name: where, the name, and what to say."""
    for path in modules(root):
        where = path.relative_to(root)
        seen: set[str] = set()
        for line, name in [(1, path.stem), *_names(path.read_text("utf-8"))]:
            if name in seen or name in WIRE_NAMES:
                continue
            seen.add(name)
            if name in NAMES:
                yield f"{where}:{line}: {name}: not {name!r}, but {NAMES[name]}"
            for part in _PART.findall(name):
                word = part.lower()
                if word in IDENTIFIERS and not (word == "trail" and "audit" in name.lower()):
                    yield f"{where}:{line}: {name}: not {word!r}, but {IDENTIFIERS[word]}"


def retired_on_pages(root: Path) -> Iterator[str]:
    """Yield one line for each retired word on a page, outside code."""
    for page in PAGES:
        for path in [root / page] if page.endswith(".md") else sorted((root / page).rglob("*.md")):
            text = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code.group()), path.read_text("utf-8"))
            for use in _uses(path.relative_to(root), 1, text):
                yield f"{use}: {PROSE[use.word]}"


def retired_in_code(root: Path) -> Iterator[Use]:
    """Yield each use of a retired word in docstrings, comments and messages."""
    for path in modules(root):
        if path == Path(__file__):
            continue
        source, where = path.read_text("utf-8"), path.relative_to(root)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield from _uses(where, token.start[0], token.string)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield from _uses(where, node.lineno, node.value)


def _uses(path: Path, first: int, text: str) -> Iterator[Use]:
    for number, line in enumerate(text.splitlines(), first):
        for word in PROSE:
            if re.search(rf"\b(?:{word})\b", line, re.IGNORECASE):
                yield Use(word, path, number, line.strip())


def modules(root: Path) -> Iterator[Path]:
    """Yield every Python file that is ours."""
    for folder in CODE:
        yield from sorted(path for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts)


def _names(source: str) -> Iterator[tuple[int, str]]:
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and (before, token.string) != (".", "tell"):  # a file's method
            yield token.start[0], token.string
        before = token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            yield node.lineno, node.value


if __name__ == "__main__":
    sys.exit(main())
