"""Finds the field of a settings model by its dotted key. It reads types, never values."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue, SecretStr
from pydantic.fields import FieldInfo

from pipeline.secret_files import Holds
from pipeline.units import Unit

T = TypeVar("T")

_PRIVATE_KEY = "key_file"
"""A model with secrets but without notes on them: subscribers use it too, and read no secret files."""

Loc = tuple[str | int, ...]
"""The location of a setting: keys, and indices of list items."""


def dotted(loc: Loc) -> str:
    """Return a location as text, e.g. ``ecs.acme.webhook.secrets.0.value``."""
    return ".".join(map(str, loc))


def members(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or the type itself, without ``Annotated``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def models(annotation: Any) -> list[type[BaseModel]]:
    """Return those members of a type that are models."""
    return [one for one in members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]


def fields(annotation: Any) -> dict[str, FieldInfo]:
    """Return all fields that a table of this type may have; for a union, the fields of all its members."""
    return {name: field for model in reversed(models(annotation)) for name, field in model.model_fields.items()}


def item(annotation: Any) -> Any:
    """Return the type of the values of a table or list; None for any other type."""
    for member in members(annotation):
        origin = get_origin(member)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return get_args(member)[1]
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return get_args(member)[0]
    return None


def holds(annotation: Any, kind: type) -> bool:
    """Return whether one member of a type is ``kind``."""
    return any(isinstance(one, type) and issubclass(one, kind) for one in members(annotation))


def unit_of(field: FieldInfo | None, annotation: Any) -> Unit | None:
    """Return the unit that the type of a number names (:mod:`pipeline.units`); None for any other type."""
    return note_of(field, annotation, Unit)


def note_of(field: FieldInfo | None, annotation: Any, kind: type[T]) -> T | None:
    """Return the note of class ``kind`` in the type of a field; None if the type has none."""
    notes = [*(field.metadata if field is not None else ()), *_notes(annotation)]
    return next((note for note in notes if isinstance(note, kind)), None)


def _notes(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from annotation.__metadata__
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _notes(member)


def is_secret(annotation: Any) -> bool:
    """Return whether a value of this type must never be shown."""
    inner = item(annotation)
    return holds(annotation, SecretStr) or (inner is not None and is_secret(inner))


def is_guarded(annotation: Any) -> bool:
    """Return whether messages must hide a value of this type, because it may be a secret in the wrong place.

    They hide secrets, names of files, tables with a secret or with the name of its file, and options of plug-ins.
    """
    if annotation is None:
        return False
    inner = item(annotation)
    return (
        is_secret(annotation)
        or is_path(annotation)
        or inner is JsonValue
        or is_guarded(inner)
        or any(_holds_secret(model) for model in models(annotation))
    )


def _holds_secret(model: type[BaseModel]) -> bool:
    return any(
        is_secret(field.annotation)
        or note_of(field, field.annotation, Holds) is not None
        or name == _PRIVATE_KEY
        or any(_holds_secret(inner) for inner in (*models(field.annotation), *models(item(field.annotation))))
        or item(field.annotation) is JsonValue
        for name, field in model.model_fields.items()
    )


def is_path(annotation: Any) -> bool:
    """Return whether a value of this type names a file or folder."""
    return holds(annotation, Path)


class Spot:
    """A field of a settings model, found by its location.

    Attributes:
        loc: The location without pydantic's additions (tags of unions).
        field: The field; None for an unknown key or a list item.
        annotation: Its type, or None for an unknown key.
        siblings: The fields of its table.
    """

    def __init__(self, loc: Loc, field: FieldInfo | None, annotation: Any, siblings: Mapping[str, FieldInfo]) -> None:
        self.loc = loc
        self.field = field
        self.annotation = annotation
        self.siblings = siblings


def _is_tagged(model: type[BaseModel], tag: str | int) -> bool:
    return any(
        get_origin(field.annotation) is Literal and tag in get_args(field.annotation)
        for field in model.model_fields.values()
    )


def _is_tag(annotation: Any, step: str | int) -> bool:
    alternatives = models(annotation)
    return len(alternatives) > 1 and any(_is_tagged(one, step) for one in alternatives)


def locate(model: type[BaseModel], loc: Loc) -> Spot:
    """Return the field at a location that pydantic reports."""
    annotation: Any = model
    field: FieldInfo | None = None
    siblings: Mapping[str, FieldInfo] = {}
    clean: list[str | int] = []
    for number, step in enumerate(loc):
        known = fields(annotation)
        inner = item(annotation)
        if step in known:
            field, siblings = known[str(step)], known
            annotation = field.annotation
        elif inner is not None and step != "[key]":
            field, siblings, annotation = None, {}, inner
        elif number < len(loc) - 1 or step == "[key]" or not known or _is_tag(annotation, step):
            # the tag of a union's member, or pydantic's own marker
            annotation = next((one for one in models(annotation) if _is_tagged(one, step)), annotation)
            continue
        else:
            return Spot((*clean, step), None, None, known)
        clean.append(step)
    return Spot(tuple(clean), field, annotation, siblings)
