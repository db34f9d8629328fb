"""Explains in one line why a setting is refused and what to write instead. Never shows a secret value."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from os.path import lexists
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from pipeline.errors import FatalError
from pipeline.secret_files import SecretUnreadable
from pipeline.settings.shape import (
    Spot,
    dotted,
    fields,
    holds,
    is_guarded,
    is_secret,
    item,
    locate,
    members,
    models,
    unit_of,
)
from pipeline.units import BOOLEAN_FOR_NUMBER

_SHOWN_CHARS: Final = 60
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")
_EXAMPLES: Final[Mapping[type, str]] = {
    bool: "true",
    int: "1",
    float: "1.0",
    UUID: '"4933e450-d3c4-406f-9b9b-3afb812a5b7c"',
    AwareDatetime: '"2027-01-31T12:00:00Z"',
    Path: '"PATH"',
    str: '"..."',
}


class ConfigError(FatalError):
    """The settings cannot be used. Raised before anything is started.

    Attributes:
        problems: One line for each problem: full key, rule, and what to write. Free of secret values.
    """

    def __init__(self, problems: Sequence[str], *, code: str = "config_invalid") -> None:
        """Take all problems; the message has one line for each."""
        super().__init__(code, "\n".join(problems))
        self.problems = tuple(problems)


def refusal(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the line for a validation error: ``full.key: rule; what to write``."""
    spot = locate(model, error["loc"])
    explain = _EXPLAINED.get(error["type"], _other)
    text = explain(error, spot)
    return f"{dotted(spot.loc)}: {text}" if spot.loc else text


def shown(value: object, *, secret: bool = False) -> str:
    """Return a value for a message. A value that may be a secret is described, not shown."""
    if secret or not isinstance(value, str | int | float | bool):
        return "this value"
    if isinstance(value, str) and (len(value) > _SHOWN_CHARS or "@" in value or "\n" in value):
        return "this text"
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def explained(path: Path, error: SecretUnreadable, folder: Path | None = None) -> str:
    """Return the fault of a secret file, and the remedy.

    The text names the path only if that file exists. Otherwise the "path" may be the secret itself.

    Args:
        path: The file.
        error: The error of its reader.
        folder: The folder of relative paths, to name in the text; None: do not name it.
    """
    if lexists(path):
        return f"{path} {error.fault}" + ("" if error.malformed else "; let the user of this process read it")
    doubt = "" if _FILE_NAME.fullmatch(path.name) else " (is it the secret itself?)"
    begin = f"; relative paths start from {folder}" if folder else ""
    remedy = "create it with only the secret in it: (umask 077; printf %s SECRET > FILE)"
    return f"no file exists at this path{doubt}; {remedy}{begin}"


def unknown_key(key: str, known: Mapping[str, object]) -> str:
    """Return the message for an unknown key, with the nearest known one."""
    near = difflib.get_close_matches(key, list(known), n=1)
    if near:
        return f"is not a setting; did you mean {near[0]}?"
    return f"is not a setting; this table has: {', '.join(sorted(known)) or 'none'}"


def _value(error: ErrorDetails, spot: Spot) -> str:
    return shown(error["input"], secret=is_guarded(spot.annotation))


def _key(spot: Spot) -> str:
    # an item of a list has the key of the list
    keys = [str(step) for step in spot.loc if isinstance(step, str)]
    return keys[-1] if keys else "key"


def _remedy(spot: Spot) -> str:
    if spot.annotation is not None and is_secret(spot.annotation):
        return f'write {_key(spot)}_file = "PATH"; the file must hold only the secret'
    if spot.annotation is not None and models(spot.annotation):
        return f"write a table: [{dotted(spot.loc)}]"
    if spot.annotation is not None and models(item(spot.annotation)):
        needed = [name for name, field in fields(item(spot.annotation)).items() if field.is_required()]
        return f"write a table for each: [[{dotted(spot.loc)}]]" + (f" with {', '.join(needed)}" if needed else "")
    return f"write e.g. {_key(spot)} = {_example(spot.field, spot.annotation)}"


def _example(field: FieldInfo | None, annotation: Any) -> str:
    if field is not None:
        if field.examples:
            return toml_value(field.examples[0])
        default = field.get_default(call_default_factory=True, validated_data={})
        if default is not PydanticUndefined and default not in (None, "", (), {}, []):
            return toml_value(default)
    choices = _choices(annotation)
    if choices:
        return toml_value(choices[0])
    known = next((text for kind, text in _EXAMPLES.items() if holds(annotation, kind)), None)
    if known is not None or item(annotation) is None:
        return known or '"..."'
    return '{ KEY = "VALUE" }' if _is_table(annotation) else f"[{_example(None, item(annotation))}]"


def toml_value(value: object) -> str:
    """Return a value in TOML syntax."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(str(key))} = {toml_value(one)}" for key, one in value.items() if one is not None)
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(str(value), ensure_ascii=False)


def _is_table(annotation: Any) -> bool:
    origins = [get_origin(one) for one in members(annotation)]
    return any(isinstance(origin, type) and issubclass(origin, Mapping) for origin in origins)


def _choices(annotation: Any) -> tuple[Any, ...]:
    return next((get_args(one) for one in members(annotation) if get_origin(one) is Literal), ())


def _number(error: ErrorDetails, spot: Spot) -> str:
    whole = holds(spot.annotation, int)
    unit = unit_of(spot.field, spot.annotation)
    named = unit.name if unit else ""
    kind = ("a whole number" if whole else "a number") + (f" of {named}" if named else "")
    given = error["input"]
    meant = unit.number_in(given) if unit and isinstance(given, str) else None
    if meant is not None:
        return f"{_value(error, spot)} has a unit; write only the number of {named}: {_key(spot)} = {meant}"
    return f"{_value(error, spot)} is not {kind}; {_remedy(spot)}"


def _missing(_error: ErrorDetails, spot: Spot) -> str:
    return f"is missing; {_remedy(spot)}"


def _unknown(_error: ErrorDetails, spot: Spot) -> str:
    return unknown_key(str(spot.loc[-1]), spot.siblings)


def _choice(error: ErrorDetails, spot: Spot) -> str:
    offered = ", ".join(map(toml_value, _choices(spot.annotation)))
    return f"{_value(error, spot)} is not one of {offered}; {_remedy(spot)}"


def _bound(word: str, key: str) -> Callable[[ErrorDetails, Spot], str]:
    def explain(error: ErrorDetails, spot: Spot) -> str:
        unit = unit_of(spot.field, spot.annotation)
        limit = str(error.get("ctx", {})[key]).removesuffix(".0")
        named = f" {unit.name}" if unit and unit.name else ""
        return f"{_value(error, spot)} is not {word} {limit}{named}; {_remedy(spot)}"

    return explain


def _kind(words: str) -> Callable[[ErrorDetails, Spot], str]:
    def explain(error: ErrorDetails, spot: Spot) -> str:
        return f"{_value(error, spot)} is not {words}; {_remedy(spot)}"

    return explain


def _network(error: ErrorDetails, spot: Spot) -> str:
    return f'{_value(error, spot)} is not a network; write e.g. "192.0.2.0/24", with zero bits after the prefix'


def _listed(error: ErrorDetails, spot: Spot) -> str:
    hint = " (in an environment variable: as JSON)" if isinstance(error["input"], str) else ""
    return f"{_value(error, spot)} is not a list{hint}; {_remedy(spot)}"


def _few(error: ErrorDetails, spot: Spot) -> str:
    return f"needs at least {error.get('ctx', {})['min_length']}; {_remedy(spot)}"


def _table(error: ErrorDetails, spot: Spot) -> str:
    if isinstance(spot.loc[-1], int):
        needed = [name for name, field in fields(spot.annotation).items() if field.is_required()]
        keys = ", ".join(f'{name} = "..."' for name in needed) or "..."
        return f"{_value(error, spot)} is not a table; write each item of the list as a table: {{ {keys} }}"
    return f"{_value(error, spot)} is not a table; write [{dotted(spot.loc)}] and its keys below"


def _tag(_error: ErrorDetails, spot: Spot) -> str:
    context = _error.get("ctx", {})
    tag = str(context.get("discriminator", "")).strip("'")
    offered = context.get("expected_tags")
    if offered is None:
        offered = ", ".join(_tags(spot.annotation, tag))
    given = context.get("tag")
    rule = f"{tag} = {shown(given)} is not one of {offered}" if given is not None else f"{tag} is missing"
    return f"{rule}; write {tag} = one of {offered}"


def _tags(annotation: Any, tag: str) -> list[str]:
    found = [choice for one in models(annotation) for choice in _choices(one.model_fields[tag].annotation)]
    return [repr(choice) for choice in found]


def _stated(error: ErrorDetails, _spot: Spot) -> str:
    # the text of our own validators already has the rule and the remedy
    return str(error.get("ctx", {}).get("error", error["msg"]))


def _member(error: ErrorDetails, spot: Spot) -> str:
    if error["loc"][-1:] == ("[key]",):
        return f"is not known; known: {error.get('ctx', {})['expected']}"
    return _other(error, spot)


def _pattern(error: ErrorDetails, spot: Spot) -> str:
    if error["loc"][-1:] == ("[key]",):
        rule = "1 to 63 lower case letters, digits and dashes, starting with a letter or digit"
        return f"is not a valid name of an integration; write {rule}"
    return f"{_value(error, spot)} does not match {error.get('ctx', {})['pattern']}; {_remedy(spot)}"


def _other(error: ErrorDetails, spot: Spot) -> str:
    return f"{_value(error, spot)} is refused: {error['msg'].rstrip('.')}; {_remedy(spot)}"


_EXPLAINED: Final[Mapping[str, Callable[[ErrorDetails, Spot], str]]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "int_parsing": _number,
    "int_type": _number,
    "int_from_float": _number,
    "float_parsing": _number,
    "float_type": _number,
    "finite_number": _number,
    BOOLEAN_FOR_NUMBER: _number,
    "literal_error": _choice,
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "string_type": _kind("a text in quotes"),
    "bool_parsing": _kind("true or false"),
    "bool_type": _kind("true or false"),
    "datetime_from_date_parsing": _kind("a date and time with a zone"),
    "datetime_parsing": _kind("a date and time with a zone"),
    "timezone_aware": _kind("a date and time with a zone"),
    "too_short": _few,
    "ip_any_network": _network,
    "uuid_parsing": _kind("a GUID"),
    "uuid_type": _kind("a GUID"),
    "path_type": _kind("a path in quotes"),
    "tuple_type": _listed,
    "list_type": _listed,
    "frozen_set_type": _listed,
    "set_type": _listed,
    "dict_type": _table,
    "model_type": _table,
    "model_attributes_type": _table,
    "union_tag_invalid": _tag,
    "union_tag_not_found": _tag,
    "enum": _member,
    "value_error": _stated,
    "string_pattern_mismatch": _pattern,
}
