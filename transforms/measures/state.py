"""The mergeable state of a measure: a scalar column, or what is computed from the group's number of each row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

#: Begins the name of every state column, so that none is named like a key.
PREFIX = "state:"

#: A numpy array of numbers.
Numbers = npt.NDArray[Any]

_CELL_BITS = 32
_CELL_BIAS = 1 << (_CELL_BITS - 1)


@dataclass(frozen=True, eq=False)
class Scalar:
    """One state column that one aggregation makes and another merges.

    Attributes:
        name: the state column; measures that give the same name share the column.
        partial: the aggregation over a group's events.
        merge: the aggregation over a group's partial rows.
        row: where `partial` needs it, a column made for each event first, under the same name.
    """

    name: str
    partial: pl.Expr
    merge: pl.Expr
    row: pl.Expr | None = None


@dataclass(frozen=True)
class Grouped(ABC):
    """A state that is computed from the group's number of each row, where aggregations would not do.

    Attributes:
        column: the measured column.
    """

    column: str

    @property
    def name(self) -> str:
        """The beginning of its columns' names; measures that need the same state of the same column share it."""
        return f"{PREFIX}{type(self).__name__}({self.column})"

    @abstractmethod
    def partial(self, events: pl.DataFrame, group: Numbers, groups: int) -> list[pl.Series]:
        """Make the state columns of a table of events.

        Args:
            events: the events.
            group: the group's number of each event.
            groups: the number of groups.

        Returns:
            The state columns, a row a group.
        """

    @abstractmethod
    def merge(self, partials: pl.DataFrame, group: Numbers, groups: int) -> list[pl.Series]:
        """Merge the state columns of partial rows.

        Args:
            partials: a table with the state columns.
            group: the group's number of each row.
            groups: the number of groups.

        Returns:
            The state columns, a row a group.
        """


class Sketch(Grouped):
    """A state of numbered cells, each with a value: two list columns, `<name>.cell` and `<name>.value`.

    Every sketch is a group-by over (group, cell): which cell an event falls in and what its values combine to is all
    that differs.
    """

    #: What the values are kept as.
    value_type: ClassVar[type[np.generic]]

    @abstractmethod
    def cells(self, events: pl.DataFrame) -> tuple[Numbers, Numbers, Numbers | int]:
        """Find the cell of each event.

        Args:
            events: the events.

        Returns:
            Which events are counted (bool, one an event), then of those the cell (within int32) and the value, which
            may be one number for all.
        """

    @abstractmethod
    def combine(self, key: Numbers, value: Numbers | int) -> tuple[Numbers, Numbers]:
        """Combine the values of each key.

        Args:
            key: a number for each value, not negative: its group in the high bits, its cell in the low 32.
            value: the values, or one number for all.

        Returns:
            The keys in ascending order, each once, and the combined value of each.
        """

    def partial(self, events: pl.DataFrame, group: Numbers, groups: int) -> list[pl.Series]:
        """Put each event in its cell."""
        counted, cell, value = self.cells(events)
        return self._columns(group[counted], cell, value, groups)

    def merge(self, partials: pl.DataFrame, group: Numbers, groups: int) -> list[pl.Series]:
        """Combine equal cells."""
        row, cell, value = self.entries(partials)
        return self._columns(group[row], cell, value, groups)

    def entries(self, partials: pl.DataFrame) -> tuple[Numbers, Numbers, Numbers]:
        """Lay out the lists of the state columns.

        Args:
            partials: a table with the two state columns.

        Returns:
            The row's number, the cell and the value of each entry, in the table's order (within a row, by cell).
        """
        row, cell = flatten(partials[f"{self.name}.cell"])
        return row, cell, flatten(partials[f"{self.name}.value"])[1]

    def _columns(self, group: Numbers, cell: Numbers, value: Numbers | int, groups: int) -> list[pl.Series]:
        key, value = self.combine((group << _CELL_BITS) + (cell.astype(np.int64) + _CELL_BIAS), value)
        offsets = pa.array(np.searchsorted(key, np.arange(groups + 1) << _CELL_BITS), pa.int64())
        cell = ((key & ((1 << _CELL_BITS) - 1)) - _CELL_BIAS).astype(np.int32)
        columns = {"cell": cell, "value": value.astype(self.value_type)}
        return [
            pl.Series(f"{self.name}.{part}", pa.LargeListArray.from_arrays(offsets, pa.array(numbers)))
            for part, numbers in columns.items()
        ]


def flatten(lists: pl.Series) -> tuple[Numbers, Numbers]:
    """Lay out a column of lists of numbers, none of them null.

    Args:
        lists: the column.

    Returns:
        The row's number of each entry, and the entries.

    Example:
        >>> row, entry = flatten(pl.Series([[5, 6], [], [7]]))
        >>> row.tolist(), entry.tolist()
        ([0, 0, 2], [5, 6, 7])
    """
    # Through Arrow: the same in Polars takes four calls of some 80 µs each, which is most of a small table's cost.
    array = lists.to_arrow()
    return np.repeat(np.arange(len(array)), np.diff(array.offsets.to_numpy())), array.flatten().to_numpy()
