"""Finds the kind of source for a name in the settings, by its entry point."""

from __future__ import annotations

import inspect
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from pydantic import BaseModel

from pipeline.errors import FatalError
from pipeline.plugins import import_plugin
from pipeline.webhooks.sources.protocols import SourceKind

ENTRY_POINT_GROUP: Final = "card_pipeline.sources"


def load_kind(name: str) -> SourceKind:
    """Return the installed kind of source with this name.

    Raises:
        FatalError: It is not installed (the message lists those that are), not importable, or not a kind of source.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return _checked(import_plugin(point, partial(_refused, point)), point)
    raise FatalError(
        "source_kind_unknown",
        f"There is no kind of source {name!r}. Installed: {', '.join(installed()) or 'none'}.",
    )


def installed() -> tuple[str, ...]:
    """Return the names of all installed kinds of sources."""
    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)}))


def _refused(point: EntryPoint, why: str) -> FatalError:
    return FatalError(
        "source_kind_unknown", f"The kind of source {point.name} ({point.value}) cannot be imported: {why}."
    )


def _checked(target: object, point: EntryPoint) -> SourceKind:
    options = getattr(target, "Options", None)
    callables = [callable(getattr(target, name, None)) for name in ("source", "verifier")]
    if not inspect.isclass(target) or not inspect.isclass(options) or not issubclass(options, BaseModel):
        fault = "it must be a class with a pydantic model `Options`"
    elif not all(callables):
        fault = "it needs `source(self, name, options)` and `verifier(self, name, options, secrets)`"
    else:
        try:
            kind = cast("SourceKind", target())
        except TypeError:
            fault = "its constructor must take no parameters"
        else:
            return kind
    raise FatalError("source_kind_invalid", f"{point.name} ({point.value}) is no kind of source: {fault}.")
