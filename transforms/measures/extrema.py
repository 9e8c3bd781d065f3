"""`min(column)` and `max(column)`."""

from __future__ import annotations

import polars as pl

from transforms.measures.measure import Measure, column_type, register
from transforms.measures.parse import Call
from transforms.measures.state import PREFIX, Scalar


def _is_ordered(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.String, pl.Boolean)


class _Extremum(Measure):
    def __init__(self, call: Call, schema: pl.Schema) -> None:
        column_type(call, schema, _is_ordered, "a number, a time, a string or a boolean")
        name = f"{PREFIX}{call.function}({call.argument})"
        column, state = pl.col(call.argument), pl.col(name)
        if call.function == "min":
            self.states = (Scalar(name, column.min(), state.min()),)
        else:
            self.states = (Scalar(name, column.max(), state.max()),)

    def finish(self, merged: pl.DataFrame) -> pl.Expr:
        """Give the extremum."""
        return pl.col(self.states[0].name)


@register("min")
class Min(_Extremum):
    """The least value that is not null, null where there is none: the column's type. NaN loses to any number."""


@register("max")
class Max(_Extremum):
    """The greatest value that is not null, null where there is none: the column's type. NaN loses to any number."""
