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
from fabric_beam.dictionaries import DictionaryBuilder
from fabric_beam.endpoints import Endpoint, step
from fabric_beam.errors import InputError, SchemaError
from fabric_beam.io import files
from fabric_beam.io.file_sink import FileSink
from fabric_beam.progress import PROGRESS

_MAX_ROWS = 4_000_000
_ROWS_PER_BATCH = 16_384
#: pyarrow 16 writes no string views.
_WRITABLE = pl.CompatLevel.oldest()
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
    """Writes the tables between two flushes as a row group.

    Tables are put into the form they are written in as they come: their text is in the processor's cache then, and the
    block of the source that it lies in need not be kept.
    """

    def __init__(self, level: int, file: IO[bytes], schema: pl.Schema) -> None:
        self._empty = pl.DataFrame(schema=schema)
        # Times, offsets and sizes differ little from row to row: as differences they take a third of the time to write
        # that a dictionary of them takes, and less room.
        self._numbers = {name: "DELTA_BINARY_PACKED" for name, dtype in schema.items() if dtype.to_python() in _DELTA}
        # What is stored of the Arrow schema would say that texts are dictionaries, and so would readers.
        store_schema = not _carries(self._empty)
        self._columns: dict[str, _Column] = {
            name: _Text() if dtype == pl.String and not store_schema else _Column() for name, dtype in schema.items()
        }
        self._open = partial(
            pq.ParquetWriter,
            file,
            compression="zstd",
            compression_level=level,
            store_schema=store_schema,
            # Statistics of a dictionary are made anew for so many rows: by default 1,024, at twice the cost.
            write_batch_size=16_384,
        )
        self._writer: pq.ParquetWriter | None = None
        self._held = 0

    def write(self, table: pl.DataFrame) -> None:
        for column in table.get_columns():
            self._columns[column.name].append(column)
        self._held += table.height

    def flush(self) -> None:
        if not self._held:
            return
        table = pa.table({name: column.finish() for name, column in self._columns.items()})
        if self._writer is None:
            self._writer = self._open(
                table.schema,
                use_dictionary=[name for name in self._columns if name not in self._numbers],
                column_encoding=self._numbers,
            )
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._held = 0

    def close(self) -> None:
        self.flush()
        if self._writer is None:
            self._writer = self._open(self._empty.to_arrow(compat_level=_WRITABLE).schema)
        self._writer.close()


class _Column:
    """A column of the next row group, as Arrow has it."""

    def __init__(self) -> None:
        self._arrays: list[pa.Array] = []

    def append(self, column: pl.Series) -> None:
        self._arrays.append(column.to_arrow(compat_level=_WRITABLE))

    def finish(self) -> pa.ChunkedArray:
        arrays, self._arrays = self._arrays, []
        return pa.chunked_array(arrays)


class _Text(_Column):
    """A column of texts: dictionaries, if one pays in the file's first row group."""

    def __init__(self) -> None:
        super().__init__()
        self._builder: DictionaryBuilder | None = DictionaryBuilder()
        self._is_dictionary = False

    def append(self, column: pl.Series) -> None:
        if self._builder is not None:
            if self._builder.append(column):
                return
            self._arrays = [self._builder.finish().dictionary_decode()]
            self._builder = None
        super().append(column)

    def finish(self) -> pa.ChunkedArray:
        if self._builder is not None:
            self._is_dictionary = True
            return pa.chunked_array([self._builder.finish()])
        if not self._is_dictionary:
            return super().finish()
        # The file was begun with a dictionary for this column, and its schema holds for all of it.
        self._builder = DictionaryBuilder()
        return super().finish().combine_chunks().dictionary_encode()


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
