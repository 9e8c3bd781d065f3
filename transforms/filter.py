"""Filter: keep the rows for which an SQL condition is true."""

from __future__ import annotations

import polars as pl

from fabric_beam.expressions import compile_predicate, reject_failures
from fabric_beam.kernel import Split
from fabric_beam.map_batches import MapBatches


class FilterKernel:
    """Keep the rows for which a Boolean expression is true.

    Args:
        predicate: an expression over the columns of one row.

    Columns out: those that came in. Rows for which it is false or null are filtered; rows on which it fails, such as a
    CAST of text that is not a number, are rejected by the rule `expression`.

    Example:
        >>> FilterKernel(pl.col("size") > 1)(pl.DataFrame({"size": [1, 2, None]})).rows()
        [(2,)]
    """

    def __init__(self, predicate: pl.Expr) -> None:
        self.predicate = predicate

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        return reject_failures(table, self._keep, [self.predicate])

    def _keep(self, table: pl.DataFrame) -> pl.DataFrame:
        return table.filter(self.predicate)


class Filter(MapBatches):
    """Keep the rows for which an SQL condition is true; null counts as false, as in SQL's WHERE.

    Args:
        expression: the condition (`fabric_beam.expressions`), with dotted column names written bare.

    Columns in: those that the condition names. Columns out: all that came in.

    Raises:
        UsageError: while the pipeline is built, if the condition does not fit the columns.

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> errors = Filter("http.response.status_code >= 500")
        >>> collect(batch(http__response__status_code=[200, 503]), errors).rows()
        [(503,)]
    """

    def __init__(self, expression: str) -> None:
        super().__init__(filters=True)
        self.expression = expression

    def default_label(self) -> str:
        return f"Filter({self.expression})"

    def bind(self, schema: pl.Schema) -> FilterKernel:
        return FilterKernel(compile_predicate(self.expression, schema))
