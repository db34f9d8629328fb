from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Generic, TypeVar

import pytest

from pipeline.contracts import Record
from pipeline.contracts.frozen import quick

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Box(Generic[T]):
    """Has a field of a type that is chosen later."""

    value: T
    about: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Labelled(Record):
    """Has fields of a base as well."""

    label: str = ""


@dataclass(frozen=True)
class Loose:
    """Has no slots."""

    value: int


def test_the_object_is_equal_to_one_that_the_class_makes() -> None:
    made: Box[int] = quick(Box)(1, "one")
    assert made == Box(1, "one")
    assert type(made) is Box
    assert hash(made) == hash(Box(1, "one"))
    assert repr(made) == repr(Box(1, "one"))
    assert replace(made, value=2) == Box(2, "one")


def test_the_object_is_frozen() -> None:
    made: Box[int] = quick(Box)(1, "one")
    with pytest.raises(FrozenInstanceError):
        made.value = 2  # type: ignore[misc]  # the point of the test


def test_a_record_is_pickled_and_names_its_headers() -> None:
    made = quick(Record)("t", 0, 1, "k", b"v", (("a", b"1"), ("b", b"2"), ("a", b"3")), 5, 1, None)
    assert made.named == {"a": b"1", "b": b"2"}
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - just made


@pytest.mark.parametrize("other", [Labelled, Loose])
def test_a_class_of_another_layout_is_refused(other: type) -> None:
    with pytest.raises(TypeError):
        quick(other)
