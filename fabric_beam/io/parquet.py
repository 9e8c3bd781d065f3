"""`parquet:` read and written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import IO, Any

import apache_beam as beam
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fabric_beam import ledger
from fabric_beam.batches import BatchOf, arrow_schema, to_batch
from fabric_beam.dictionaries import dictionary_encoded
from fabric_beam.endpoints import Endpoint, step
from fabric_beam.errors import InputError, SchemaError
from fabric_beam.io import files
from fabric_beam.io.file_sink import FileSink
from fabric_beam.progress import PROGRESS

_MAX_ROWS = 4_000_000
_ROWS_PER_BATCH = 16_384
#: pyarrow 16 writes no string views.
_WRITABLE = pl.CompatLevel.oldest()
_FEW_VALUES = 1000
_DELTA = (int, datetime, date, time, timedelta)


class WriteParquet(FileSink):
    """Write batches as Parquet files compressed with zstd.

    Args:
        endpoint: `parquet:FOLDER?max_rows=4000000&compression_level=1`.
        job: what the files' names begin with.

    Source: https://parquet.apache.org/docs/file-format/
    """

    def __init__(self, endpoint: Endpoint, job: str) -> None:
        max_rows = endpoint.option("max_rows", int, _MAX_ROWS)
        level = endpoint.option("compression_level", int, 1)
        endpoint.no_more_options("max_rows", "compression_level")

        super().__init__(
            endpoint.path, job=job, suffix="parquet", write=partial(_ParquetWriter, level), max_rows=max_rows
        )


class _ParquetWriter:
    """Writes each table as a row group."""

    def __init__(self, level: int, file: IO[bytes], schema: pl.Schema) -> None:
        self._empty = pl.DataFrame(schema=schema)
        # Times, offsets and sizes differ little from row to row: as differences they take a third of the time to write
        # that a dictionary of them takes, and less room.
        self._numbers = {name: "DELTA_BINARY_PACKED" for name, dtype in schema.items() if dtype.to_python() in _DELTA}
        # What is stored of the Arrow schema would say that texts are dictionaries, and so would readers.
        store_schema = not _carries(self._empty)
        self._texts = {name for name, dtype in schema.items() if dtype == pl.String and not store_schema}
        self._open = partial(
            pq.ParquetWriter, file, compression="zstd", compression_level=level, store_schema=store_schema
        )
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pl.DataFrame) -> None:
        arrow = pa.table({column.name: self._array(column) for column in table.get_columns()})
        if self._writer is None:
            self._writer = self._open(
                arrow.schema,
                use_dictionary=[name for name in table.columns if name not in self._numbers],
                column_encoding=self._numbers,
                write_statistics=[name for name in table.columns if not _has_many_values(arrow[name])],
            )
        self._writer.write_table(arrow, row_group_size=max(table.height, 1))

    def close(self) -> None:
        if self._writer is None:
            self.write(self._empty)
        assert self._writer is not None
        self._writer.close()

    def _array(self, column: pl.Series) -> pa.Array:
        if column.name in self._texts:
            found = dictionary_encoded(column)
            if found is not None:
                return found
            if self._writer is not None:
                # The file was begun with a dictionary for this column, and its schema holds for all of it.
                return column.to_arrow(compat_level=_WRITABLE).dictionary_encode()
            self._texts.discard(column.name)
        return column.to_arrow(compat_level=_WRITABLE)


def _has_many_values(column: pa.ChunkedArray) -> bool:
    """Whether the least and the greatest text tell readers little about a row group, and take as long as writing it."""
    return pa.types.is_dictionary(column.type) and len(column.chunk(0).dictionary) > _FEW_VALUES


def _carries(empty: pl.DataFrame) -> bool:
    """Whether Parquet's own types tell all there is to know of a table's schema."""
    file = io.BytesIO()
    pq.write_table(empty.to_arrow(compat_level=_WRITABLE), file, store_schema=False)
    return pl.DataFrame(pl.from_arrow(pq.read_table(file))).schema == empty.schema


class ReadParquet(beam.PTransform):
    """Read Parquet files, a row group at a time.

    Args:
        endpoints: `parquet:PATH`, where PATH is a file, glob, folder or URL of Beam's file systems.
        limit: read at most this many rows, in order.

    Output: batches with the files' columns, and `source` and `offset` (the path and the row's number in the file) where
    the files do not have them already.

    Raises:
        InputError: if nothing matches, or a file is not Parquet.
        SchemaError: if the files' schemas differ.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, limit: int | None = None) -> None:
        super().__init__()
        for endpoint in endpoints:
            endpoint.no_more_options()
        found = files.match([endpoint.path for endpoint in endpoints])
        self.files = [file for file in found if file.path.endswith(".parquet")] or found
        self._limit = limit

    def expand(self, pbegin: Any) -> beam.PCollection:
        label = step(pbegin.pipeline)
        schema = _schema(self.files[0])
        work = [self.files] if self._limit is not None else [[file] for file in self.files]
        PROGRESS.add(total=sum(file.size for file in self.files))
        rows = (
            pbegin
            | "Files" >> beam.Create(work, reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Rows" >> beam.ParDo(_ReadRows(label, schema, self._limit))
        )
        rows.element_type = BatchOf(arrow_schema(pl.DataFrame(schema=schema)))
        return rows


def _schema(file: files.File) -> pl.Schema:
    with files.open_file(file) as handle:
        schema = _parquet(handle, file.path).schema_arrow
    columns = pl.DataFrame(pl.from_arrow(schema.empty_table())).schema
    return pl.Schema({**columns, **{k: v for k, v in _PROVENANCE.items() if k not in columns}})


_PROVENANCE = {"source": pl.String(), "offset": pl.Int64()}


def _parquet(handle: IO[bytes], path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(handle)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error


class _ReadRows(beam.DoFn):
    def __init__(self, step: str, schema: pl.Schema, limit: int | None) -> None:
        self._schema = schema
        self._limit = limit
        self._account = ledger.Account(step)

    def process(self, work: list[files.File]) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for file in work:
            with files.open_file(file) as handle:
                offset = 0
                for batch in _parquet(handle, file.path).iter_batches(_ROWS_PER_BATCH):
                    table = self._table(pl.DataFrame(pl.from_arrow(batch)), file.path, offset)
                    offset += table.height
                    if left is not None:
                        table = table.head(left)
                        left -= table.height
                    self._account.add("read", table.height)
                    PROGRESS.add(rows=table.height)
                    if table.height:
                        yield to_batch(table)
                    if left == 0:
                        return
            PROGRESS.add(bytes=file.size)

    def _table(self, table: pl.DataFrame, path: str, offset: int) -> pl.DataFrame:
        if "source" not in table.columns:
            table = table.with_columns(pl.lit(path).alias("source"))
        if "offset" not in table.columns:
            table = table.with_columns(pl.int_range(offset, offset + pl.len(), dtype=pl.Int64).alias("offset"))
        try:
            return table.select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())
        except pl.exceptions.PolarsError as error:
            raise SchemaError(
                f"{path}: its columns differ from the first file's ({', '.join(self._schema)}): {error}"
            ) from error
