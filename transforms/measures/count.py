"""`count`: events; `count(column)`: events in which the column is not null."""

from __future__ import annotations

import polars as pl

from transforms.measures.measure import Measure, column_type, register
from transforms.measures.parse import Call
from transforms.measures.state import PREFIX, Scalar


def count_state(column: str = "") -> Scalar:
    """Give the state that counts events, or the values of a column that are not null (Int64)."""
    name = f"{PREFIX}count({column})"
    counted = pl.col(column).count() if column else pl.len()
    return Scalar(name, counted.cast(pl.Int64), pl.col(name).sum())


@register("count")
class Count(Measure):
    """The number of events, or of values that are not null: Int64."""

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        if call.argument:
            column_type(call, schema, lambda _: True)
        self.states = (count_state(call.argument),)

    def finish(self, merged: pl.DataFrame) -> pl.Expr:
        """Give the count."""
        return pl.col(self.states[0].name)
