"""Windowed aggregation in three steps that know nothing of Beam: partial, merge, finish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from fabric_beam.errors import SchemaError, UsageError, nearest
from transforms.measures.measure import build
from transforms.measures.parse import parse
from transforms.measures.state import PREFIX, Grouped, Numbers, Scalar, flatten
from transforms.measures.window import TIME, TIMESTAMP, WINDOW_END, WINDOW_START, Window

_ROW = f"{PREFIX}row"


class Aggregation:
    """Measures of events for each window and key, computed batch by batch and merged.

    Each batch becomes a partial table: `window_start` (Datetime µs UTC), the key columns, and state columns whose
    names begin with `state:`. Partial tables are flat (scalars and lists of numbers), so Arrow IPC carries them. They
    merge in any order and grouping with the same result (floating-point sums, to rounding), within one run: see
    `HyperLogLog`.

    Args:
        schema: the columns of the events; `timestamp` must be Datetime('us', 'UTC'). Rows in which it is null must be
            taken out before.
        window: the windows.
        by: the key columns; a null is a key of its own. May be empty.
        measures: such as `count`, `count(col)`, `count_if(expression) AS name`, `sum(col)`, `min(col)`, `max(col)`,
            `mean(col)`, `stddev(col)`, `distinct(col)`, `p50(col)`, `p99.9(col)`, each with an optional `AS name`.
            Without one the output column is `count` or `<col>.<function>`. Nulls in a measured column are ignored.

    Raises:
        SchemaError: a column is missing or of the wrong type.
        UsageError: a measure is malformed, its function unknown, or two output columns have the same name.

    Example:
        >>> from datetime import UTC, datetime
        >>> times = [datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC) for second in (0, 30, 59)]
        >>> events = pl.DataFrame({"timestamp": times, "host.name": ["a", "b", "a"], "size": [10, 20, 50]})
        >>> aggregation = Aggregation(events.schema, Window.parse("1m"), ["host.name"], ["count", "sum(size) AS bytes"])
        >>> partials = pl.concat([aggregation.partial(events[:2]), aggregation.partial(events[2:])])
        >>> aggregation.finish(partials).select("host.name", "count", "bytes").rows()
        [('a', 2, 60), ('b', 1, 20)]
    """

    def __init__(self, schema: pl.Schema, window: Window, by: Sequence[str], measures: Sequence[str]) -> None:
        for column in (TIMESTAMP, *by):
            if column not in schema:
                raise SchemaError(f"no column {column!r}. {nearest(column, schema)}")
        if nested := [column for column in by if schema[column].is_nested()]:
            raise SchemaError(f"key columns may not be nested: {', '.join(nested)}")
        if schema[TIMESTAMP] != TIME:
            raise SchemaError(f"column {TIMESTAMP!r} is {schema[TIMESTAMP]}, expected {TIME}")
        if not measures:
            raise UsageError("expected at least one measure, such as 'count'")
        calls = [parse(text) for text in measures]
        outputs = Counter([WINDOW_START, WINDOW_END, *by, *(call.name for call in calls)])
        if repeated := [name for name, times in outputs.items() if times > 1]:
            raise UsageError(f"output columns named twice: {', '.join(repeated)}. Name a measure with AS")
        if reserved := [column for column in by if column.startswith(PREFIX)]:
            raise UsageError(f"key columns may not begin with {PREFIX!r}: {', '.join(reserved)}")
        self._window = window
        self._by = list(by)
        self._keys = [WINDOW_START, *by]
        self._panes: list[str | pl.Expr] = [window.assign(), *by]
        self._measures = {call.name: build(call, schema) for call in calls}
        states = {state.name: state for measure in self._measures.values() for state in measure.states}
        scalars = [state for state in states.values() if isinstance(state, Scalar)]
        self._grouped = [state for state in states.values() if isinstance(state, Grouped)]
        self._rows = [state.row.alias(state.name) for state in scalars if state.row is not None]
        self._partial = [state.partial.alias(state.name) for state in scalars]
        self._merge = [state.merge.alias(state.name) for state in scalars]

    @property
    def conditional(self) -> bool:
        """Whether there are conditions to evaluate (`count_if`), which can fail on a row."""
        return bool(self._rows)

    def evaluate(self, events: pl.DataFrame) -> pl.DataFrame:
        """Evaluate the conditions of `count_if`: the one step of `partial` that can fail, as on a CAST of bad text.

        Args:
            events: a table of the schema given.

        Returns:
            The events with the conditions beside them. Under `reject_failures` this kernel finds the rows to take out
            before `partial`.

        Raises:
            polars.exceptions.PolarsError: a condition fails on a row.
        """
        return events.with_columns(self._rows) if self._rows else events

    def partial(self, events: pl.DataFrame) -> pl.DataFrame:
        """Reduce a batch of events.

        Args:
            events: a table of the schema given, `timestamp` never null.

        Returns:
            A partial table: a row for each window and key.

        Raises:
            polars.exceptions.PolarsError: `evaluate` fails.
        """
        events = self.evaluate(events)
        panes = self._group(
            events,
            self._panes,
            self._partial,
            lambda state, group, groups: state.partial(events, group, groups),
        )
        table = self._window.expand(panes)
        return table if self._window.pane == self._window.size else self.merge(table)

    def merge(self, partials: pl.DataFrame) -> pl.DataFrame:
        """Merge partial tables.

        Args:
            partials: partial tables, one below the other.

        Returns:
            A partial table: a row for each window and key.
        """
        return self._group(
            partials,
            self._keys,
            self._merge,
            lambda state, group, groups: state.merge(partials, group, groups),
        )

    def finish(self, partials: pl.DataFrame) -> pl.DataFrame:
        """Merge partial tables and compute the measures.

        Args:
            partials: partial tables, merged or not, one below the other.

        Returns:
            `window_start` and `window_end` (Datetime µs UTC), the key columns and the measures, sorted by
            `window_start`, then by the keys in their order, null first.
        """
        merged = self.merge(partials).sort(self._keys)
        end = (pl.col(WINDOW_START) + pl.duration(microseconds=self._window.size)).alias(WINDOW_END)
        outputs = [measure.finish(merged).alias(name) for name, measure in self._measures.items()]
        return merged.select(WINDOW_START, end, *self._by, *outputs)

    def _group(
        self,
        table: pl.DataFrame,
        keys: Sequence[str | pl.Expr],
        scalars: Sequence[pl.Expr],
        columns: Callable[[Grouped, Numbers, int], list[pl.Series]],
    ) -> pl.DataFrame:
        if not self._grouped:
            return table.group_by(keys, maintain_order=True).agg(scalars)
        grouped = table.with_row_index(_ROW).group_by(keys, maintain_order=True).agg(*scalars, pl.col(_ROW))
        number, row = flatten(grouped.drop_in_place(_ROW))
        group = np.empty(len(table), np.int64)
        group[row] = number
        return grouped.hstack([column for state in self._grouped for column in columns(state, group, len(grouped))])
