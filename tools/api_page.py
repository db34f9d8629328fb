"""``docs/reference/python/``: the Python interfaces, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Final

from pydantic import BaseModel

from tools import settings_page
from tools.markdown import page, table

_SPECS: Final = ("HmacSpec", "SharedSecretSpec", "StandardWebhooksSpec")
PAGES: Final[Mapping[str, tuple[str, str, Mapping[str, tuple[str, ...]]]]] = {
    "subscriber": (
        "Python: subscriber",
        "How to use it: [subscribe to events](../../how-to/subscribe.md).",
        {"pipeline.subscriber": (), "pipeline.subscriber.testing": ()},
    ),
    "processors": (
        "Python: processors and their tests",
        "How to use it: [write a processor](../../how-to/write-a-processor.md).",
        {
            "pipeline.jobs.processors": (
                "RowProcessor",
                "GroupProcessor",
                "ColumnarProcessor",
                "Card",
                "CardGroup",
                "CardResult",
                "CardError",
                "TransientCardError",
                "JobContext",
            ),
            "pipeline.testing": (),
        },
    ),
    "sources": (
        "Python: sources of webhooks",
        "How to use it: [write a source](../../how-to/write-a-source.md).",
        {
            "pipeline.webhooks.sources": (
                "SourceKind",
                "Source",
                "Identified",
                "Policy",
                "WebhookRequest",
                "InvalidBody",
                "Finding",
                "Verifier",
                "Verified",
                "SchemeVerifier",
            ),
            "pipeline.webhooks.verification": ("scheme_of", *_SPECS, "Secret", "SignatureRefused", "Reason"),
        },
    ),
}
"""Page -> title, introduction, and the modules with the names that the page shows; no names: all that it offers."""

_SECTION: Final = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
_ENTRY: Final = re.compile(r"^ {4}(\*{0,2}[\w.]+(?:, [\w.]+)*):\s+(.*)$")
_TITLES: Final = {"Args": "Argument", "Attributes": "Attribute", "Raises": "Raises"}
_OTHERS: Final = {"Returns": "Returns", "Yields": "Yields"}


def render() -> dict[str, str]:
    """Return each page by its name."""
    return {name: _page(*described) for name, described in PAGES.items()}


def shown(name: str) -> dict[str, tuple[str, ...]]:
    """Return the names that a page shows, by module."""
    return {module: names or tuple(importlib.import_module(module).__all__) for module, names in PAGES[name][2].items()}


def _page(title: str, intro: str, modules: Mapping[str, tuple[str, ...]]) -> str:
    parts = [intro]
    for module, names in modules.items():
        found = importlib.import_module(module)
        parts += [f"## {module}", *(_entry(one, getattr(found, one)) for one in names or found.__all__)]
    return page(title, *parts)


def _entry(name: str, value: Any) -> str:
    parts = [f"### {name}"]
    if not isinstance(value, type):
        parts += [_code(name, value), markdown(inspect.getdoc(value) or "")] if callable(value) else [_alias(value)]
    elif issubclass(value, BaseModel):
        parts += [markdown(inspect.getdoc(value) or ""), settings_page.keys(value)]
    elif issubclass(value, enum.Enum):
        parts += [markdown(inspect.getdoc(value) or ""), ", ".join(f"`{one.value}`" for one in value)]
    else:
        parts += [_code(name, value), markdown(inspect.getdoc(value) or "")]
        parts += [_method(name, one, method) for one, method in _methods(value)]
    return "\n\n".join(part for part in parts if part)


def _alias(value: Any) -> str:
    members = value.__args__ if isinstance(value, UnionType) else getattr(value, "__args__", ())
    return ", ".join(f"`{getattr(one, '__name__', one)}`" for one in members)


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield public methods and properties that have a docstring, in their order."""
    for name, value in vars(cls).items():
        plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if not name.startswith("_") and (callable(plain) or isinstance(plain, property)) and inspect.getdoc(plain):
            yield name, plain


def _method(owner: str, name: str, value: Any) -> str:
    about = markdown(inspect.getdoc(value) or "")
    if isinstance(value, property):
        return f"#### {owner}.{name}\n\nProperty. {about}"
    return f"#### {owner}.{name}\n\n{_code(name, value)}\n\n{about}"


def _code(name: str, value: Callable[..., Any]) -> str:
    """Return the signature as code, one parameter a line where it is long."""
    if isinstance(value, type) and getattr(value, "_is_protocol", False):
        return f"```python\nclass {name}(Protocol)\n```"
    signature = "" if _takes_anything(value) else _signature(value)
    kind = "class" if isinstance(value, type) else "async def" if inspect.iscoroutinefunction(value) else "def"
    line = f"{kind} {name}{signature}"
    if len(line) > 100:  # noqa: PLR2004 - as wide as the page
        inner, _, after = signature.removeprefix("(").rpartition(")")
        line = f"{kind} {name}(\n" + "".join(f"    {one},\n" for one in _split(inner)) + f"){after}"
    return f"```python\n{line}\n```"


def _takes_anything(value: Callable[..., Any]) -> bool:
    return isinstance(value, type) and issubclass(value, Exception) and "__init__" not in vars(value)


def _signature(value: Callable[..., Any]) -> str:
    found = inspect.signature(value)
    parameters = [_brief(one) for one in found.parameters.values() if one.name != "self"]
    returns = inspect.Signature.empty if isinstance(value, type) else _plain(found.return_annotation)
    return str(found.replace(parameters=parameters, return_annotation=returns))


def _brief(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter with an annotation as it is written, and a default that fits a line."""
    default = parameter.default
    if default is not inspect.Parameter.empty and (len(repr(default)) > 60 or repr(default) == "<factory>"):  # noqa: PLR2004
        default = _Written("...")
    return parameter.replace(annotation=_plain(parameter.annotation), default=default)


def _plain(annotation: Any) -> Any:
    return _Written(annotation) if isinstance(annotation, str) else annotation


@dataclasses.dataclass(frozen=True)
class _Written:
    """What a signature shows without quotes."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _split(parameters: str) -> list[str]:
    """Split a signature at its top-level commas."""
    parts, depth = [""], 0
    for sign in parameters:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def markdown(docstring: str) -> str:
    """Return a docstring in Google's style as Markdown: its sections become tables."""
    parts: list[str] = []
    for block in docstring.split("\n\n"):
        lines = block.splitlines()
        title = _SECTION.match(lines[0]) if lines else None
        if title and title[1] in _TITLES:
            parts.append(table((_TITLES[title[1]], "Meaning"), _entries(lines[1:])))
        elif title:
            parts.append(f"**{_OTHERS[title[1]]}** " + " ".join(line.strip() for line in lines[1:]))
        else:
            parts.append(block)
    return _roles("\n\n".join(parts))


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    entries: list[tuple[str, str]] = []
    for line in lines:
        found = _ENTRY.match(line)
        if found:
            entries.append((f"`{found[1]}`", found[2]))
        else:
            name, text = entries.pop()
            entries.append((name, f"{text} {line.strip()}"))
    return entries


def _roles(text: str) -> str:
    """Return the text with Markdown's code for that of reStructuredText."""
    text = re.sub(r":[a-z]+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")
