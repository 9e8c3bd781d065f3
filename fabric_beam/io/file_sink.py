"""What every sink of files shares: buffering, date folders, temporary files, and one commit at the end."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import IO, Any, NamedTuple, Protocol

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.runner import PipelineState
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from fabric_beam import ledger
from fabric_beam.batches import BatchOf, event_time, from_batch
from fabric_beam.endpoints import Sink, step
from fabric_beam.errors import OutputError, UsageError
from fabric_beam.map_batches import as_batches

#: Rows that are written together, of all dates: what the sink holds in memory.
_GROUP_ROWS = 131_072
#: Files that are open at a time: one a date.
_OPEN_FILES = 32


class TableWriter(Protocol):
    """Writes tables of one schema to an open file, one after the other."""

    def write(self, table: pl.DataFrame) -> None:
        """Append a table's rows; they may stay in memory until `flush`."""

    def flush(self) -> None:
        """Write the rows that are in memory."""

    def close(self) -> None:
        """Write them and what belongs at the file's end; the file stays open."""


#: Begins a file with rows of a schema.
Format = Callable[[IO[bytes], pl.Schema], TableWriter]


class _Written(NamedTuple):
    partition: str
    first: str
    temporary: str
    rows: int


class FileSink(Sink):
    """Write batches as files in a folder.

    Files are written under temporary names while the pipeline runs, and take their final names together when all of
    them are whole: a failed run puts nothing in place. Final names are `JOB-00000.SUFFIX` and so on, in order of the
    rows' provenance; a run with the same job replaces the files of the one before, and touches no others. A run without
    rows writes one file without rows, so that readers find the schema.

    Temporary files lie in a folder `.tmp-JOB.SUFFIX-*` beside the others. A failed run removes it if it was waited for
    (`with beam.Pipeline()`, a named pipeline); else the next run with the same job does.

    Args:
        folder: where the files go, on any of Beam's file systems; made if it is not there.
        job: what the files' names begin with.
        suffix: what they end with.
        write: begins a file.
        max_rows: with how many rows a file is full.

    Input: batches; those with an event time are spread over folders `date=YYYY-MM-DD` (UTC).
    """

    def __init__(self, folder: str, *, job: str, suffix: str, write: Format, max_rows: int) -> None:
        super().__init__()
        if not folder:
            raise UsageError("A file sink needs a folder, such as parquet:out/events.")
        if wrong := re.search(r"[*?[]", folder + job):
            raise UsageError(f"{folder!r}, job {job!r}: {wrong[0]!r} would make a pattern of it. Name it without.")
        if max_rows < 1:
            raise UsageError(f"max_rows={max_rows}: a file needs at least one row.")
        self._folder = folder.rstrip("/") if FileSystems.get_scheme(folder) else os.path.normpath(folder)
        self._job = job
        self._suffix = suffix
        self._write = write
        self._max_rows = max_rows
        self._temporary = FileSystems.join(self._folder, f".tmp-{job}.{suffix}-{uuid.uuid4().hex[:12]}")

    def prepare(self) -> None:
        """Make the folders, so that a place that cannot be written is known before the run.

        Raises:
            OutputError: if it cannot.
        """
        try:
            with contextlib.suppress(FileExistsError):
                FileSystems.mkdirs(self._temporary)
        except (OSError, BeamIOError) as error:
            raise OutputError(
                f"Cannot write to {self._folder!r}: {error}. Check that it is a folder that you may write to."
            ) from error

    def clean_up(self) -> None:
        """Remove what a failed run has left."""
        with contextlib.suppress(OSError, BeamIOError):
            FileSystems.delete([self._temporary])

    def _left(self, pipeline: beam.Pipeline) -> None:
        """Clean up unless the run, on a cluster that nobody waited for, goes on."""
        result = getattr(pipeline, "result", None)
        if result is None or PipelineState.is_terminal(result.state):
            self.clean_up()

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        label = step(pcoll.pipeline)
        pcoll, hint = as_batches(pcoll)
        if not pcoll.is_bounded:
            raise UsageError(f"{label}: a file sink takes a bounded input only.")
        # Beam has no public way to be told that a `with` is over.
        if context := getattr(pcoll.pipeline, "_extra_context", None):
            context.callback(self._left, pcoll.pipeline)
        written = (
            pcoll
            | "Global" >> beam.WindowInto(GlobalWindows())
            | "Write" >> beam.ParDo(_Write(self._temporary, self._write, self._max_rows, event_time(hint.schema)))
        )
        return (
            pcoll.pipeline
            | "Once" >> beam.Impulse()
            | "Commit"
            >> beam.ParDo(
                _Commit(label, self._folder, self._temporary, self._job, self._suffix, self._write, hint),
                beam.pvalue.AsIter(written),
            )
        )


class _Write(beam.DoFn):
    """Writes rows to files by date, under temporary names."""

    def __init__(self, temporary: str, write: Format, max_rows: int, time_column: str | None) -> None:
        self._temporary = temporary
        self._format = write
        self._max_rows = max_rows
        self._time_column = time_column
        self._files: dict[str, _File] = {}

    def start_bundle(self) -> None:
        self._files = {}

    def process(self, batch: pa.RecordBatch) -> Iterator[_Written]:
        for partition, table in _by_date(from_batch(batch), self._time_column):
            if partition not in self._files:
                if len(self._files) == _OPEN_FILES:
                    yield self._close(max(self._files, key=lambda each: self._files[each].rows))
                path = FileSystems.join(self._temporary, uuid.uuid4().hex)
                self._files[partition] = _File(path, self._format, table.schema)
            self._files[partition].add(table)
            if self._files[partition].rows >= self._max_rows:
                yield self._close(partition)
        while sum(file.held for file in self._files.values()) >= _GROUP_ROWS:
            max(self._files.values(), key=lambda file: file.held).flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for partition in sorted(self._files):
            yield WindowedValue(self._close(partition), GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _close(self, partition: str) -> _Written:
        file = self._files.pop(partition)
        file.close()
        return _Written(partition, file.first, file.path, file.rows)


class _File:
    """One file, under its temporary name.

    Attributes:
        path: the name.
        first: the provenance of its first row, as text that sorts as it does.
        rows: how many rows it has, `held` ones included.
        held: how many of them were added since the last flush.
    """

    def __init__(self, path: str, write: Format, schema: pl.Schema) -> None:
        self.path = path
        self.rows = self.held = 0
        self.first = ""
        with self._errors():
            self._file = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
            self._writer = write(self._file, schema)

    def add(self, table: pl.DataFrame) -> None:
        if not self.rows:
            identity = [name for name in ("source", "offset") if name in table.columns]
            first = table.select(identity).row(0) if identity else (str(table.row(0)),)
            self.first = "".join(str(x).rjust(20, "0") if isinstance(x, int) else str(x) for x in first)
        with self._errors():
            self._writer.write(table)
        self.rows += table.height
        self.held += table.height

    def flush(self) -> None:
        with self._errors():
            self._writer.flush()
        self.held = 0

    def close(self) -> None:
        with self._errors():
            self._writer.close()
            self._file.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, BeamIOError, pl.exceptions.ComputeError) as error:
            raise OutputError(f"Cannot write {self.path}: {error}. Is the disk full?") from error


def _by_date(table: pl.DataFrame, time_column: str | None) -> Iterator[tuple[str, pl.DataFrame]]:
    if time_column is None:
        yield "", table
        return
    times = table[time_column]
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone not in (None, "UTC"):
        times = times.dt.convert_time_zone("UTC")
    ends = [end.date() for end in (times.min(), times.max()) if isinstance(end, datetime)]
    if len(set(ends)) == 1 and not times.null_count():
        yield _folder(ends[0]), table
        return
    dates = times.dt.date()
    for (date,), part in table.with_columns(dates.alias("_date")).partition_by("_date", as_dict=True).items():
        yield _folder(date), part.drop("_date")


def _folder(date: Any) -> str:
    return f"date={date}" if date is not None else "date=unknown"


class _Commit(beam.DoFn):
    """Gives the temporary files their final names, once all are written."""

    def __init__(
        self, step: str, folder: str, temporary: str, job: str, suffix: str, write: Format, hint: BatchOf
    ) -> None:
        self._folder = folder
        self._temporary = temporary
        self._job = job
        self._suffix = suffix
        self._write = write
        self._empty = hint.empty()
        self._account = ledger.Account(step)

    def process(self, _: Any, written: Iterable[_Written]) -> Iterator[str]:
        results = sorted(written)
        if not results:
            path = FileSystems.join(self._temporary, uuid.uuid4().hex)
            _File(path, self._write, self._empty.schema).close()
            results = [_Written("", "", path, 0)]
        counts: dict[str, int] = {}
        moves = {}
        for result in results:
            number = counts[result.partition] = counts.get(result.partition, -1) + 1
            folder = FileSystems.join(self._folder, result.partition) if result.partition else self._folder
            moves[result.temporary] = FileSystems.join(folder, f"{self._job}-{number:05d}.{self._suffix}")
        stale, left_over = self._earlier()
        try:
            for folder in {path.rpartition("/")[0] for path in moves.values()}:
                with contextlib.suppress(FileExistsError, BeamIOError, OSError):
                    FileSystems.mkdirs(folder)
            # A worker that died here may have moved some already.
            left = [path for path, name in moves.items() if FileSystems.exists(path) or not FileSystems.exists(name)]
            FileSystems.rename(left, [moves[path] for path in left])
            if gone := sorted(set(stale) - set(moves.values())):
                FileSystems.delete(gone)
            # A worker may be writing there again what another has written already: nobody waits for that.
            with contextlib.suppress(OSError, BeamIOError):
                FileSystems.delete([self._temporary])
            for folder in left_over:
                with contextlib.suppress(OSError, BeamIOError):
                    FileSystems.delete([folder])
        except (OSError, BeamIOError) as error:
            raise OutputError(f"Cannot put the files in place in {self._folder}: {error}.") from error
        self._account.add("written", sum(result.rows for result in results))
        yield from moves.values()

    def _earlier(self) -> tuple[list[str], set[str]]:
        """The files of earlier runs of this job, and the folders of temporary files of those that failed."""
        [found] = FileSystems.match([FileSystems.join(self._folder, "**")])
        job, suffix = re.escape(self._job), re.escape(self._suffix)
        final = re.compile(rf"(date=[^/]+/)?{job}-\d+\.{suffix}")
        temporary = re.compile(rf"\.tmp-{job}\.{suffix}-[0-9a-f]{{12}}/")
        files, folders = [], set()
        for path in (metadata.path for metadata in found.metadata_list):
            name = path.removeprefix(self._folder).lstrip("/")
            if final.fullmatch(name):
                files.append(path)
            elif temporary.match(name):
                folders.add(FileSystems.join(self._folder, name.partition("/")[0]))
        return files, folders - {self._temporary}
