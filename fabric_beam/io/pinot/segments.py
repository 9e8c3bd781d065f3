"""Pinot without Kafka: rows are gathered into segments whose names say which rows they have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows

from fabric_beam.batches import from_batch, to_batch
from fabric_beam.endpoints import Endpoint, step
from fabric_beam.errors import UsageError
from fabric_beam.io.pinot.columns import time_column, unfit, values
from fabric_beam.io.pinot.controller import Controller
from fabric_beam.io.pinot.tables import Table
from fabric_beam.io.store import PROVENANCE, Store
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.json_rows import to_json
from fabric_beam.map_batches import as_batches
from fabric_beam.option_kinds import whole

#: Of what bulks are for others: here a segment is one.
_BULKS = ("rows", "bytes", "age")
_SEGMENT = "\0segment"


class SegmentStore(Store):
    """An OFFLINE table; what it is given at a time is a whole segment."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("span", "job", *Table.OPTIONS, *Controller.OPTIONS)
    CONCURRENCY: ClassVar[int] = 1

    def __init__(self, endpoint: Endpoint) -> None:
        self._controller = Controller(endpoint)
        self._table = Table.of(endpoint, self._controller.table, "OFFLINE", {})
        self._span = endpoint.option("span", whole, 16 << 20)
        self._job = endpoint.option("job", _name, "part")

    def check(self, schema: pl.Schema) -> None:
        self._table.columns(schema)

    def connect(self, timeout: float) -> None:
        self._controller.timeout = timeout
        self._controller.ping()

    def ensure(self, schema: pl.Schema) -> None:
        self._controller.ensure(self._table, schema)

    def segments(self, table: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Split a table by the segments that its rows belong to, whatever other rows there are.

        Those of one `source` whose `offset` lies within the same `span` are together; those without provenance, if they
        are of one job and day.
        """
        time = time_column(table.schema)
        day = pl.col(time).dt.date().cast(pl.String).fill_null("none") if time else pl.lit("all")
        place = pl.format("{}_{}", pl.lit(self._job), day)
        if set(PROVENANCE) <= set(table.columns):
            source = pl.col("source").cast(pl.String)
            number = (pl.col("offset") // self._span).cast(pl.String)
            place = pl.coalesce(pl.format("{}\0{}", source, number), place)
        places = table.select(place.alias(_SEGMENT))[_SEGMENT]
        if places.n_unique() == 1:
            yield _segment(places[0]), table
            return
        parts = table.with_columns(places).partition_by(_SEGMENT, as_dict=True, include_key=False)
        for (text,), part in parts.items():
            yield _segment(text), part

    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        [(segment, _)] = self.segments(table)
        fit, bad = unfit(table)
        if fit.height:
            self._controller.upload(segment, to_json(values(fit)).str.join("\n")[0].encode())
        return bad if bad.height else None

    def transient(self, error: Exception) -> bool:
        return self._controller.transient(error)


class WriteSegments(StoreSink):
    """Write batches to an OFFLINE table of Pinot: for backfills.

    Args:
        endpoint: `pinot://[user:password@]controller[:port]/table`. `span` says how much of a source is one segment, in
            units of `offset`, which are bytes of a file (16 MiB) or a topic's messages; `layout` `analytics`,
            `dashboards` or `reports` (indexes), `dimensions` the columns that queries filter and group by, `ttl` in
            seconds, `alter=true` adds columns to a table that is there, `https=true`. And what every store's URL takes
            (see `StoreSink`), but for `rows`, `bytes` and `age`.
        job: names the segments of rows that have no provenance.

    Input: bounded. Rows are gathered by segment, and each is handed to the controller whole, under a name that only
    depends on which rows it may have. So what is written again, by a repeated run or after a worker was killed, takes
    the place of what was there. A segment is in memory while it is written.

    Source: https://docs.pinot.apache.org/basics/data-import/batch-ingestion
    """

    store = SegmentStore

    def __init__(self, endpoint: Endpoint, job: str) -> None:
        for name in _BULKS:
            if name in endpoint.options:
                raise UsageError(
                    f"pinot: without kafka= there is no option {name!r}: `span` says what a segment holds."
                )
        endpoint.options.setdefault("job", job)
        super().__init__(endpoint, job)
        # Every batch is a segment, and is written at once and whole.
        self._limits = self._limits._replace(rows=1 << 62, bytes=1 << 62, age=-1.0)

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        label = step(pcoll.pipeline)
        batches, hint = as_batches(pcoll)
        if not pcoll.is_bounded:
            raise UsageError(f"{label}: without kafka= only a bounded input can be written.")
        assert isinstance(self._store, SegmentStore)
        parts = batches | "Split" >> beam.ParDo(_Split(self._store))
        parts.element_type = beam.typehints.KV[str, hint]
        segments = (
            parts
            | "Segments" >> beam.WindowInto(GlobalWindows())
            | "Gather" >> beam.GroupByKey()
            | "Join" >> beam.ParDo(_Join())
        )
        segments.element_type = hint
        return super().expand(segments)


class _Split(beam.DoFn):
    """Gives each part of a batch the name of its segment."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        table = from_batch(batch)
        for segment, part in self._store.segments(table) if table.height else ():
            yield segment, to_batch(part)


class _Join(beam.DoFn):
    """Makes one batch of a segment's rows."""

    def process(self, element: tuple[str, Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        table = pl.concat([from_batch(batch) for batch in element[1]])
        yield to_batch(table.sort(PROVENANCE) if set(PROVENANCE) <= set(table.columns) else table)


def _segment(place: str) -> str:
    """A segment's name: something to recognise it by, and a hash that tells it from all others."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", place)[-60:].strip("-")
    return f"{readable}_{hashlib.blake2b(place.encode(), digest_size=8).hexdigest()}"


def _name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


_name.__name__ = "a name"
