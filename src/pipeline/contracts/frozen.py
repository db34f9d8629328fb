"""Making frozen objects quickly, where millions are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, make_dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


def quick(frozen: type[T]) -> Callable[..., T]:
    """Return a constructor of a frozen dataclass with slots; it takes all fields by position, in their order.

    The class's own constructor sets each field by a call, because assignment is forbidden: that takes ten times as
    long. This one fills an instance of a twin class that allows assignment, then turns it into one of the frozen class.
    The result is the same. It runs no ``__post_init__``.

    Raises:
        TypeError: The class has no slots, or a base with fields: its instances have another layout.
    """
    bases = getattr(frozen, "__orig_bases__", frozen.__bases__)
    names = [one.name for one in fields(cast("Any", frozen))]
    twin = make_dataclass(frozen.__name__, [(name, Any) for name in names], bases=bases, slots=True)
    # the check, at import: an instance that cannot be turned would fail for each record
    probe = twin(*names)
    probe.__class__ = frozen

    def made(*values: Any) -> T:
        one = twin(*values)
        one.__class__ = frozen
        return cast("T", one)

    return made
