"""Every number in the settings has a unit in its type, and its name ends in that unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.jobs.processors.http.options import HttpOptions
from pipeline.sandbox.settings import SandboxSettings
from pipeline.settings import Settings
from pipeline.settings.shape import item, members, models, unit_of
from pipeline.subscriber import SubscriberSettings
from pipeline.units import Bytes, BytesPerSecond, Count, Days, Hours, Port, Seconds, Share, Unit, WholeDays
from pipeline.webhooks.sources.settings import HmacOptions, StandardWebhooksOptions

ROOTS = (Settings, SubscriberSettings, SandboxSettings, HttpOptions, HmacOptions, StandardWebhooksOptions)


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in (*models(field.annotation), *models(item(field.annotation))):
            yield from _models(inner)


def _numbers() -> Iterator[tuple[str, str, Unit | None]]:
    """Yield model, name and unit of every setting that is a number or a list of numbers."""
    for model in dict.fromkeys(one for root in ROOTS for one in _models(root)):
        for name, field in model.model_fields.items():
            inner = item(field.annotation)
            for kind, annotation, info in ((field.annotation, field.annotation, field), (inner, inner, None)):
                if {int, float} & set(members(kind)) and str not in members(kind):
                    yield model.__name__, name, unit_of(info, annotation)


NUMBERS = list(_numbers())


def test_every_number_has_a_unit_type() -> None:
    assert [f"{model}.{name}" for model, name, unit in NUMBERS if unit is None] == []


def test_every_name_ends_in_its_unit() -> None:
    named = [(model, name, unit.name.replace(" ", "_")) for model, name, unit in NUMBERS if unit and unit.name]
    wrong = [f"{model}.{name} counts {unit}" for model, name, unit in named if not name.endswith(unit)]
    assert wrong == []


def test_no_name_of_a_plain_number_ends_in_a_unit() -> None:
    endings = ("_seconds", "_bytes", "_days", "_hours")
    plain = [f"{model}.{name}" for model, name, unit in NUMBERS if unit and not unit.name]
    assert [one for one in plain if one.endswith(endings)] == []


def test_there_are_numbers_to_look_at() -> None:
    assert len(NUMBERS) > 50
    assert ("SandboxSettings", "webhook_pauses_seconds", "seconds") in [
        (model, name, unit.name) for model, name, unit in NUMBERS if unit
    ]


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("1.5 min", Seconds, 90),
        ("250ms", Seconds, 0.25),
        ("36h", Days, 1.5),
        ("2d", WholeDays, 2),
        ("90 minutes", Hours, 1.5),
        ("2 KiB", Bytes, 2048),
        ("1kB", BytesPerSecond, 1000),
        ("3 apples", Seconds, None),
        ("10s", Bytes, None),
        ("5MB", Seconds, None),
        ("10", Seconds, None),
        ("10s", Count, None),
        ("5MB", Count, None),
    ],
)
def test_a_number_with_a_suffix_is_converted(text: str, kind: Any, number: float | None) -> None:
    unit = next(note for note in get_args(kind) if isinstance(note, Unit))
    assert unit.number_in(text) == number


@pytest.mark.parametrize(("kind", "value"), [(Port, -1), (Port, 65_536), (Share, 1.1), (Share, -0.1)])
def test_ports_and_shares_have_bounds(kind: Any, value: float) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


def test_the_unit_of_an_optional_number_is_found() -> None:
    assert unit_of(None, Annotated[float, Unit("seconds")] | None) == Unit("seconds")
