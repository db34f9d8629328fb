"""Finds retired words on pages, in names, and in docstrings, comments and messages.

``python -m tools.vocabulary`` prints each use with its replacement. A name is an identifier, a module, or a string that
names something: a log event, a metric, an error code, a settings key.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("src", "tests", "tools", "benchmarks", "examples")
PAGES: Final = ("docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")

PARTS: Final = {
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
    r"(?:what|who|that|as it|as they) stands?|stands? (?:here|there|in|on|once|for|below|beside|behind|at)": "is",
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
    """Print each use of a retired word; return 1 if there is one."""
    found = [*retired_names(ROOT), *retired_on_pages(ROOT), *retired_in_code(ROOT)]
    for use in found:
        print(use)
    return 1 if found else 0


def retired_names(root: Path) -> Iterator[str]:
    """Yield one line for each retired word in a name: where, the name, and what to say."""
    for path in modules(root):
        where = path.relative_to(root)
        seen: set[str] = set()
        for line, name in [(1, path.stem), *_names(path.read_text("utf-8"))]:
            if name in seen or name in WIRE_NAMES:
                continue
            seen.add(name)
            if name in NAMES:
                yield f"{where}:{line}: {name}: say {NAMES[name]}"
            for part in _PART.findall(name):
                word = part.lower()
                if word in PARTS and not (word == "trail" and "audit" in name.lower()):
                    yield f"{where}:{line}: {name}: not {word!r}, say {PARTS[word]}"


def retired_on_pages(root: Path) -> Iterator[str]:
    """Yield one line for each retired word on a page, outside code."""
    for page in PAGES:
        for path in [root / page] if page.endswith(".md") else sorted((root / page).rglob("*.md")):
            text = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code.group()), path.read_text("utf-8"))
            yield from _uses(path.relative_to(root), 1, text)


def retired_in_code(root: Path) -> Iterator[str]:
    """Yield one line for each retired word in docstrings, comments and messages."""
    for path in modules(root):
        source, where = path.read_text("utf-8"), path.relative_to(root)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield from _uses(where, token.start[0], token.string)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield from _uses(where, node.lineno, node.value)


def _uses(path: Path, first: int, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), first):
        for word, better in PROSE.items():
            found = re.search(rf"\b(?:{word})\b", line, re.IGNORECASE)
            if found:
                yield f"{path}:{number}: {line.strip()}: not {found[0]!r}, say {better}"


def modules(root: Path) -> Iterator[Path]:
    """Yield every Python file of the project but this one."""
    for folder in FOLDERS:
        yield from sorted(path for path in (root / folder).rglob("*.py") if path != Path(__file__))


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
