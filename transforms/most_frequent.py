"""MostFrequent: the values of a column that most rows have."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import polars as pl
import pyarrow as pa

from fabric_beam.batches import BatchOf, arrow_schema, from_batch, to_batch
from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.map_batches import as_batches, named
from fabric_beam.partials import Merge, Partials

_CAPACITY = 65_536
#: What of the true count may be missing: the sum of this column is that of every value.
_CUT = "state:cut"


class MostFrequent(beam.PTransform):
    """Count how many rows have each value of a column, and keep the most frequent ones.

    The memory that it takes does not grow with how many values there are. Up to the capacity the counts are exact.
    Beyond it each may be too low, by no more than `error`, which is at most the number of rows through the capacity;
    every value that more rows have is there.

    Args:
        column: of any type that is not nested; null is a value.
        capacity: how many values are counted at a time.

    Columns in: the one named. Columns out: it, `count` (Int64, rows), `error` (Int64, by how many rows at most `count`
    is too low; the same in every row), the most frequent value first, by value where as many have it.

    Raises:
        SchemaError, UsageError: when the pipeline is built, if there is no such column, it is nested, named like one of
            the others, or the input is unbounded.

    Sources: Misra and Gries, "Finding repeated elements", Science of Computer Programming 2(2), 1982; Agarwal, Cormode,
    Huang, Phillips, Wei and Yi, "Mergeable summaries", TODS 38(4), 2013, section 3.

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> collect(batch(host__name=["a", "b", "a"]), MostFrequent("host.name")).rows()
        [('a', 2, 0), ('b', 1, 0)]
    """

    def __init__(self, column: str, capacity: int = _CAPACITY) -> None:
        super().__init__()
        if capacity < 1:
            raise UsageError(f"capacity={capacity}: at least one value has to be counted.")
        self._column = column
        self._capacity = capacity

    def default_label(self) -> str:
        return f"MostFrequent({self._column})"

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        step = pcoll.pipeline._current_transform().full_label
        batches, hint = as_batches(pcoll)
        if not batches.is_bounded:
            raise UsageError(f"{step}: MostFrequent takes a bounded input only.")
        with named(step):
            summary = FrequentItems(hint.empty().schema, self._column, self._capacity)
        partial = summary.partial(hint.empty())
        keyed = batches | "Partials" >> beam.ParDo(Partials(summary, [], windowed=False))
        keyed.element_type = beam.typehints.KV[int, BatchOf(arrow_schema(partial))]
        frequent = (
            keyed
            | "Global" >> beam.WindowInto(beam.window.GlobalWindows())
            | "Merge" >> beam.CombinePerKey(Merge(summary)).with_output_types(beam.typehints.KV[int, pa.RecordBatch])
            | "Finish" >> beam.MapTuple(lambda _, batch: to_batch(summary.finish(from_batch(batch))))
        )
        frequent.element_type = BatchOf(arrow_schema(summary.finish(partial)))
        return frequent


class FrequentItems:
    """The summary of Misra and Gries, as an aggregation: a table of values and their counts.

    Args:
        schema: the columns of the events.
        column: the one whose values are counted.
        capacity: how many values a summary holds.

    Raises:
        SchemaError: there is no such column, or it cannot be counted.
    """

    def __init__(self, schema: pl.Schema, column: str, capacity: int) -> None:
        if column not in schema:
            raise SchemaError(f"no column {column!r}. {nearest(column, schema)}")
        if schema[column].is_nested() or column in ("count", "error", _CUT):
            raise SchemaError(f"column {column!r} is nested, or named like one that comes out: choose or name another.")
        self._column = column
        self._capacity = capacity
        self._schema = {column: schema[column], "count": pl.Int64(), _CUT: pl.Int64()}

    def partial(self, events: pl.DataFrame) -> pl.DataFrame:
        """Count the values of a batch."""
        counts = events.group_by(self._column).agg(pl.len().cast(pl.Int64).alias("count"))
        return self._cut(counts.with_columns(pl.lit(0, pl.Int64).alias(_CUT)))

    def merge(self, partials: pl.DataFrame) -> pl.DataFrame:
        """Add up the counts of summaries, one below the other."""
        return self._cut(partials.group_by(self._column).agg(pl.col("count", _CUT).sum()))

    def finish(self, merged: pl.DataFrame) -> pl.DataFrame:
        """The values, the most frequent first."""
        summary = self.merge(merged)
        return (
            summary.with_columns(pl.col(_CUT).sum().alias("error"))
            .filter(pl.col("count") > 0)
            .select(self._column, "count", "error")
            .sort("count", self._column, descending=[True, False])
        )

    def _cut(self, summary: pl.DataFrame) -> pl.DataFrame:
        """Take the count of the first that is too many off all of them; what is taken off is kept with the null."""
        if summary.height <= self._capacity:
            return summary
        cut: Any = summary["count"].top_k(self._capacity + 1).min()
        left = summary.with_columns(pl.col("count") - cut).filter((pl.col("count") > 0) | (pl.col(_CUT) > 0))
        taken = pl.DataFrame({self._column: [None], "count": [0], _CUT: [cut]}, schema=self._schema)
        return pl.concat([left.with_columns(pl.col("count").clip(0)), taken])
