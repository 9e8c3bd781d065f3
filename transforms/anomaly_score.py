"""AnomalyScore: how unusual each window or event is, by a detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import polars as pl
import pyarrow as pa

from fabric_beam.batches import BatchOf, from_batch, to_batch
from fabric_beam.errors import UsageError
from fabric_beam.map_batches import as_batches, infer, timestamped
from fabric_beam.shards import shard_out
from transforms.detectors.base import Detector

_SHARDS = 4


class AnomalyScore(beam.PTransform):
    """Score windows or events by how unusual they are.

    All rows of a series come together on one worker, in order of time, and the detector judges them at once.

    Args:
        detector: such as `RobustZScore()` or `IsolationForest()` (`transforms.detectors`).
        by: the columns that name a series, such as `service.name`; without any, all rows are one series.

    Columns in: `window_start` and `window_end` (what `Aggregate` gives) or those of events, the series' columns,
    numeric measures. Input must be bounded.
    Columns out: those that name the row and its series, `measure`, `value`, `score`, `threshold`, `is_anomaly` and
    `reason` (in words, null where not anomalous).

    Raises:
        SchemaError: when the pipeline is built, if a column is missing or not numeric.
        UsageError: if the input is unbounded.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> from fabric_beam.testing import batch, collect
        >>> from transforms.detectors import RobustZScore
        >>> starts = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(60)]
        >>> windows = batch(window_start=starts, window_end=[s + timedelta(minutes=1) for s in starts],
        ...     count=[100 + n % 7 for n in range(59)] + [5000])
        >>> collect(windows, AnomalyScore(RobustZScore())).filter(pl.col("is_anomaly")).height
        1
    """

    def __init__(self, detector: Detector, by: Sequence[str] = ()) -> None:
        super().__init__()
        self._detector = detector
        self._by = [by] if isinstance(by, str) else list(by)

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        step = pcoll.pipeline._current_transform().full_label
        batches, hint = as_batches(pcoll)
        if not pcoll.is_bounded:
            raise UsageError(f"{step}: scores bounded inputs only.")
        _, schema = infer(lambda _: lambda table: self._detector.score(table, self._by), hint, step)
        sharded = batches | "Series" >> beam.ParDo(_Shard(self._by))
        sharded.element_type = beam.typehints.KV[int, hint]
        scored = (
            sharded
            | "Global" >> beam.WindowInto(beam.window.GlobalWindows())
            | "Gather" >> beam.GroupByKey()
            | "Score" >> beam.ParDo(_Score(self._detector, self._by, "window_start" in schema.names))
        )
        scored.element_type = BatchOf(schema)
        return scored


class _Shard(beam.DoFn):
    def __init__(self, by: Sequence[str]) -> None:
        self._by = by

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        for shard, table in shard_out(from_batch(batch), self._by, _SHARDS):
            yield shard, to_batch(table)


class _Score(beam.DoFn):
    def __init__(self, detector: Detector, by: Sequence[str], windows: bool) -> None:
        self._detector = detector
        self._by = by
        self._time_column = "window_start" if windows else None

    def process(self, element: tuple[int, Iterable[pa.RecordBatch]]) -> Iterator[Any]:
        table = pl.concat([from_batch(batch) for batch in element[1]])
        # Batches come in any order: sorted, a rerun gives the same scores in the same order.
        scored = self._detector.score(table.sort(pl.all()), self._by)
        if scored.height:
            yield timestamped(scored, self._time_column)
