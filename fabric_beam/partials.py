"""Aggregation on Beam: batches become partial tables, few of which cross the shuffle, and these are merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam import coders
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from fabric_beam.batches import BatchCoder, from_batch, to_batch
from fabric_beam.shards import shard_out

_SHARDS = 4
#: Partial tables of a bundle are merged when they have grown by so many bytes, or to twice what they were. Merging the
#: cells of sketches takes ten times their memory for a moment.
_MERGE_BYTES = 4 << 20


class Aggregation(Protocol):
    """What is to be made of events, in any order and grouping."""

    def partial(self, events: pl.DataFrame) -> pl.DataFrame:
        """Reduce a batch of events to a partial table."""

    def merge(self, partials: pl.DataFrame) -> pl.DataFrame:
        """Merge partial tables, one below the other, into one."""


class Partials(beam.DoFn):
    """Reduces batches, and keys what is left of a bundle by a shard of its key."""

    def __init__(self, aggregation: Aggregation, by: Sequence[str], windowed: bool) -> None:
        self._aggregation = aggregation
        self._by = by
        self._windowed = windowed
        self._partials: list[pl.DataFrame] = []
        self._merged: float = 0
        self._grown: float = 0

    def start_bundle(self) -> None:
        self._partials = []
        self._merged = self._grown = 0

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        self._partials.append(_own(self._aggregation.partial(from_batch(batch))))
        self._grown += self._partials[-1].estimated_size()
        if self._grown > max(self._merged, _MERGE_BYTES):
            self._partials = [self._aggregation.merge(pl.concat(self._partials))]
            self._merged, self._grown = self._partials[0].estimated_size(), 0
        return iter(())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if not self._partials:
            return
        merged = self._aggregation.merge(pl.concat(self._partials))
        for shard, table in shard_out(merged, self._by, _SHARDS):
            if not self._windowed:
                yield WindowedValue((shard, to_batch(table)), GlobalWindow().max_timestamp(), [GlobalWindow()])
                continue
            for part in table.partition_by("window_start", maintain_order=True):
                start = Timestamp(micros=part["window_start"].to_physical()[0])
                yield WindowedValue((shard, to_batch(part)), start, [GlobalWindow()])


def _own(table: pl.DataFrame) -> pl.DataFrame:
    """The same with its text copied: as views of it, a few keys would keep the whole block that they lie in."""
    texts = [column for column in table.get_columns() if column.dtype == pl.String]
    return table.with_columns(
        pl.Series(text.name, text.to_arrow(compat_level=pl.CompatLevel.oldest())) for text in texts
    )


class _Tables(coders.Coder):
    """An accumulator on its way: its partial tables, merged into one batch."""

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation

    def encode(self, value: list[pl.DataFrame]) -> bytes:
        return BatchCoder().encode(to_batch(pl.concat(value))) if value else b""

    def decode(self, encoded: bytes) -> list[pl.DataFrame]:
        return [from_batch(BatchCoder().decode(encoded))] if encoded else []

    def is_deterministic(self) -> bool:
        return True


class Merge(beam.CombineFn):
    """Merges partial tables; the accumulator is a list of them."""

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation

    def create_accumulator(self) -> list[pl.DataFrame]:
        return []

    def add_input(self, accumulator: list[pl.DataFrame], batch: pa.RecordBatch) -> list[pl.DataFrame]:
        return self.merge_accumulators([accumulator, [from_batch(batch)]])

    def merge_accumulators(self, accumulators: Iterable[list[pl.DataFrame]]) -> list[pl.DataFrame]:
        return self.compact([table for accumulator in accumulators for table in accumulator])

    def compact(self, accumulator: list[pl.DataFrame]) -> list[pl.DataFrame]:
        return [self._aggregation.merge(pl.concat(accumulator))] if len(accumulator) > 1 else accumulator

    def extract_output(self, accumulator: list[pl.DataFrame]) -> pa.RecordBatch:
        return to_batch(self.compact(accumulator)[0])

    def get_accumulator_coder(self) -> coders.Coder:
        return _Tables(self._aggregation)
