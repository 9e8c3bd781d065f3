"""`count_if(expression) AS name`: events for which a condition holds."""

from __future__ import annotations

import polars as pl

from fabric_beam.errors import UsageError
from fabric_beam.expressions import compile_predicate
from transforms.measures.measure import Measure, register
from transforms.measures.parse import Call
from transforms.measures.state import PREFIX, Scalar


@register("count_if")
class CountIf(Measure):
    """The number of events for which an SQL condition is true, neither false nor null: Int64."""

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        if not call.argument or call.name == f"{call.argument}.{call.function}":
            raise UsageError(
                f"measure {call.text!r}: expected a condition and a name for the output column, "
                "as in count_if(http.response.status_code >= 500) AS errors"
            )
        condition = compile_predicate(call.argument, schema)
        name = f"{PREFIX}count_if({call.argument})"
        self.states = (Scalar(name, pl.col(name).sum().cast(pl.Int64), pl.col(name).sum(), row=condition),)

    def finish(self, merged: pl.DataFrame) -> pl.Expr:
        """Give the count."""
        return pl.col(self.states[0].name)
