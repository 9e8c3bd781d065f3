"""Aggregate: measures of events for each window and key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam import coders
from apache_beam.coders.coders import IntervalWindowCoder
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.transforms.trigger import AccumulationMode, TriggerFn
from apache_beam.transforms.window import FixedWindows, IntervalWindow, NonMergingWindowFn
from apache_beam.utils.timestamp import Duration

from fabric_beam.batches import BatchOf, arrow_schema, from_batch
from fabric_beam.expressions import reject_failures
from fabric_beam.kernel import Split, reject
from fabric_beam.map_batches import MapBatches, as_batches, named, timestamped
from fabric_beam.partials import Merge, Partials
from transforms.measures import Aggregation, Window


class Aggregate(beam.PTransform):
    """Measure events for each window of time and each key.

    Each batch is reduced to one row per window and key; only these partial rows cross the shuffle. On a bounded input
    every window closes at the end of the input. On an unbounded one, and whenever a trigger is given, Beam's windows,
    triggers and allowed lateness decide when a window's measures come out.

    Args:
        window: size of the windows, `1m`, or size and period of sliding ones, `5m/1m` (units ms s m h d).
        by: key columns; null is a key of its own.
        measures: `count`, `count(col)`, `count_if(expression) AS name`, `sum(col)`, `min(col)`, `max(col)`,
            `mean(col)`, `stddev(col)`, `distinct(col)` (HyperLogLog), `p99(col)` and every other percentile
            (relative-error sketch), each with an optional `AS name`.
        trigger: when to emit, as in `beam.WindowInto`; None is once, when the window closes.
        allowed_lateness: seconds that events may be behind the watermark.
        accumulation_mode: as in `beam.WindowInto`, where there is a trigger.

    Columns in: `timestamp` and those named. Rows without a `timestamp` are rejected.
    Columns out: `window_start`, `window_end` (UTC, [start, end)), the keys, the measures.

    Raises:
        SchemaError, UsageError: when the pipeline is built, if a column, window or measure is wrong.

    Example:
        >>> from datetime import UTC, datetime
        >>> from fabric_beam.testing import batch, collect
        >>> events = batch(timestamp=[datetime(2026, 1, 1, 12, 0, s, tzinfo=UTC) for s in (1, 2)], size=[10, 20])
        >>> collect(events, Aggregate("1m", measures=["count", "sum(size)"])).select("count", "size.sum").rows()
        [(2, 30)]
    """

    def __init__(
        self,
        window: str = "1m",
        by: Sequence[str] = (),
        measures: Sequence[str] = ("count",),
        *,
        trigger: TriggerFn | None = None,
        allowed_lateness: float = 0,
        accumulation_mode: int = AccumulationMode.DISCARDING,
    ) -> None:
        super().__init__()
        self._window = Window.parse(window)
        self._by = [by] if isinstance(by, str) else list(by)
        self._measures = [measures] if isinstance(measures, str) else list(measures)
        self._trigger = trigger
        self._lateness = allowed_lateness
        self._mode = accumulation_mode
        self._error_handler: ErrorHandler | None = None

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send rows that cannot be aggregated to one of Beam's error handlers instead of failing the run."""
        self._error_handler = error_handler
        return self

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        step = pcoll.pipeline._current_transform().full_label
        batches, hint = as_batches(pcoll)
        with named(step):
            aggregation = Aggregation(hint.empty().schema, self._window, self._by, self._measures)
        partial = aggregation.partial(hint.empty())
        windowed = self._trigger is not None or not pcoll.is_bounded

        keyed = (
            batches
            | "Events" >> MapBatches(_Events(aggregation)).with_error_handler(self._error_handler)
            | "Partials" >> beam.ParDo(Partials(aggregation, self._by, windowed=windowed))
        )
        keyed.element_type = beam.typehints.KV[int, BatchOf(arrow_schema(partial))]
        if windowed:
            size = self._window.size / 1e6
            keyed |= "Windows" >> beam.WindowInto(
                FixedWindows(size) if self._window.size == self._window.period else _Starting(size),
                trigger=self._trigger,
                accumulation_mode=self._mode if self._trigger else None,
                allowed_lateness=Duration(seconds=self._lateness),
            )
        else:
            keyed |= "Global" >> beam.WindowInto(beam.window.GlobalWindows())
        measured = (
            keyed
            | "Merge"
            >> beam.CombinePerKey(Merge(aggregation)).with_output_types(beam.typehints.KV[int, pa.RecordBatch])
            | "Finish" >> beam.ParDo(_Finish(aggregation))
        )
        measured.element_type = BatchOf(arrow_schema(aggregation.finish(partial)))
        return measured


class _Events:
    """The kernel before the partials: takes out rows that cannot be aggregated."""

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        if not table["timestamp"].null_count() and not self._aggregation.conditional:
            return table
        timed = table["timestamp"].is_not_null()
        rejected = table.filter(~timed) if not timed.all() else table.clear()
        result = reject_failures(table.filter(timed) if rejected.height else table, self._aggregation.evaluate)
        kept, failed = (result.kept, [result.rejected]) if isinstance(result, Split) else (result, [])
        without_time = reject(rejected, "timestamp", "the row has no timestamp to put it in a window")
        return Split(kept.select(table.columns), pl.concat([without_time, *failed]))


class _Starting(NonMergingWindowFn):
    """The window that begins at an element's timestamp: a sliding window's partials are already told apart by start."""

    def __init__(self, size: float) -> None:
        self._size = Duration.of(size)

    def assign(self, context: Any) -> list[IntervalWindow]:
        return [IntervalWindow(context.timestamp, context.timestamp + self._size)]

    def get_window_coder(self) -> coders.Coder:
        return IntervalWindowCoder()


class _Finish(beam.DoFn):
    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[Any]:
        yield timestamped(self._aggregation.finish(from_batch(element[1])), "window_start")
