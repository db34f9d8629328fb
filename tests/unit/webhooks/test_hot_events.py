"""The rules of the hot path for bodies of events: those of the models, or narrower."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pydantic import ValidationError
from pydantic_core import SchemaValidator

from pipeline.contracts.weavr import KINDS, WeavrObject
from pipeline.contracts.weavr.wire import Id, Instant
from pipeline.webhooks.hot_events import _without_models


class Inner(WeavrObject):
    """An object with fields that are named as parts of a schema are."""

    type: Id
    metadata: Instant
    serialization: Id | None = None
    schema_: str | None = None


class Outer(WeavrObject):
    """An object that holds such objects."""

    metadata: Inner
    function: tuple[Inner, ...] = ()


Outer.model_rebuild()
FITS: Final = SchemaValidator(_without_models(Outer.__pydantic_core_schema__))
INNER: Final = {"type": "a", "metadata": "1769121839000"}


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": INNER},
        {"metadata": INNER | {"serialization": 7}, "function": [INNER, INNER]},
        {"metadata": INNER | {"metadata": 5, "more": [{}]}, "serialization": 1.5},
    ],
)
def test_what_fits_the_model_fits(body: dict[str, Any]) -> None:
    Outer.model_validate(body)
    assert FITS.isinstance_python(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metadata": 5},
        {"metadata": INNER | {"metadata": "x"}},
        {"metadata": {"type": "a"}},
        {"metadata": INNER | {"serialization": 1.5}},
        {"metadata": INNER, "function": [INNER, {"type": "a", "metadata": []}]},
    ],
)
def test_a_field_is_checked_whatever_its_name(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Outer.model_validate(body)
    assert not FITS.isinstance_python(body)


def test_no_rule_of_an_event_needs_python() -> None:
    """It would get a dictionary in the place of the model that it was written for."""
    for kind in KINDS:
        kind.model.model_rebuild()
        assert "function" not in _words(_without_models(kind.model.__pydantic_core_schema__)), kind.path


def _words(schema: Any) -> set[str]:
    if isinstance(schema, list | tuple):
        return {word for one in schema for word in _words(one)}
    if not isinstance(schema, dict):
        return set()
    return {"function"} & schema.keys() | {word for one in schema.values() for word in _words(one)}
