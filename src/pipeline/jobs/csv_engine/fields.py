"""Added fields of many rows, written once per distinct value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DISTINCT: Final = 1024
"""So many combinations of values are written in advance, where neighbouring columns have few values each."""


@dataclass(frozen=True, slots=True)
class Fields:
    """One column, or several neighbouring ones, as bytes.

    Attributes:
        distinct: What rows may have.
        which: Which of them each row has.
    """

    distinct: list[bytes]
    which: NDArray[np.int64]

    @classmethod
    def of(cls, values: pa.Array, write: Callable[[str], bytes]) -> Fields:
        """Write each distinct value of a string column; null as an empty one."""
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        distinct = [write(value or "") for value in encoded.dictionary.to_pylist()]
        indices = encoded.indices
        if indices.null_count:
            indices = indices.cast(pa.int64()).fill_null(len(distinct))
            distinct.append(b"")
        return cls(distinct, indices.to_numpy().astype(np.int64))

    def beside(self, right: Fields, between: bytes) -> Fields | None:
        """Return both as one, or None where there are too many combinations."""
        width = len(right.distinct)
        if min(len(self.distinct), width) > 1 and len(self.distinct) * width > _DISTINCT:
            return None
        distinct = [one + between + other for one in self.distinct for other in right.distinct]
        return Fields(distinct, self.which * width + right.which)

    def rows(self) -> pa.BinaryArray:
        """Return each row's bytes."""
        return pa.array(self.distinct, pa.binary()).take(pa.array(self.which))


def folded(columns: Iterable[Fields], between: bytes) -> list[Fields]:
    """Return the columns with neighbours made one wherever their combinations are few; at least one goes in."""
    first, *others = columns
    done = [first]
    for column in others:
        both = done[-1].beside(column, between)
        if both is None:
            done.append(column)
        else:
            done[-1] = both
    return done
