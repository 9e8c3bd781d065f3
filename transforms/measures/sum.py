"""`sum(column)` and `mean(column)`: from the total and the number of values."""

from __future__ import annotations

import polars as pl

from transforms.measures.count import count_state
from transforms.measures.measure import Measure, column_type, register
from transforms.measures.parse import Call
from transforms.measures.state import PREFIX, Scalar


def sum_state(column: str, dtype: pl.DataType) -> Scalar:
    """Give the state that adds up a column as a type that holds the total."""
    name = f"{PREFIX}sum({column}):{dtype}"
    return Scalar(name, pl.col(column).cast(dtype).sum(), pl.col(name).sum())


@register("sum")
class Sum(Measure):
    """The total of the values that are not null, null where there is none.

    Integers add up as Int64 (UInt64 as UInt64), which a total beyond that type overflows; other numbers as Float64.
    """

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        dtype = column_type(call, schema)
        total = pl.UInt64() if dtype == pl.UInt64 else pl.Int64() if dtype.is_integer() else pl.Float64()
        self.states = (sum_state(call.argument, total), count_state(call.argument))

    def finish(self, merged: pl.DataFrame) -> pl.Expr:
        """Give the total, null where nothing was added."""
        total, count = (pl.col(state.name) for state in self.states)
        return pl.when(count > 0).then(total)


@register("mean")
class Mean(Measure):
    """The arithmetic mean of the values that are not null, null where there is none: Float64."""

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        column_type(call, schema)
        # Always floating point: the total of nanosecond time stamps, say, overflows Int64 at the sixth.
        self.states = (sum_state(call.argument, pl.Float64()), count_state(call.argument))

    def finish(self, merged: pl.DataFrame) -> pl.Expr:
        """Divide the total by the number of values."""
        total, count = (pl.col(state.name) for state in self.states)
        return pl.when(count > 0).then(total / count)
