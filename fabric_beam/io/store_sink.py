"""What every sink of a store shares: bulks, retries, a circuit breaker, adaptive concurrency, dead letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple, Self

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from fabric_beam import dead_letters, ledger
from fabric_beam.batches import BatchOf, arrow_schema, from_batch, to_batch
from fabric_beam.calls import Calls, Unavailable
from fabric_beam.endpoints import Endpoint, Sink, step
from fabric_beam.errors import FabricBeamError, OutputError, RejectedRowsError
from fabric_beam.io.store import Store
from fabric_beam.kernel import reject
from fabric_beam.map_batches import DEAD_LETTERS, as_batches
from fabric_beam.option_kinds import boolean, positive
from fabric_beam.progress import PROGRESS

#: The rule of rows that a store did not take because it did not answer.
UNAVAILABLE = "unavailable"


class _Limits(NamedTuple):
    """Options that every store's URL takes.

    Args:
        rows: rows in a bulk.
        bytes: bytes in a bulk, about.
        age: seconds that rows may wait for their bulk to fill.
        timeout: seconds that a bulk is tried for before its rows become dead letters.
        call_timeout: seconds that one call to the store may take.
        concurrency: bulks under way at a time, at most.
        required: whether a store that does not answer fails the run before it starts.
    """

    rows: int
    bytes: int
    age: float
    timeout: float
    call_timeout: float
    concurrency: int
    required: bool

    @classmethod
    def of(cls, endpoint: Endpoint, store: type[Store]) -> _Limits:
        return cls(
            endpoint.option("rows", positive(int), store.ROWS),
            endpoint.option("bytes", positive(int), 8 << 20),
            endpoint.option("age", positive(float), 10.0),
            endpoint.option("timeout", positive(float), 120.0),
            endpoint.option("call_timeout", positive(float), 15.0),
            endpoint.option("concurrency", positive(int), store.CONCURRENCY),
            endpoint.option("required", boolean, True),
        )


class StoreSink(Sink):
    """Write batches to a store.

    Rows are gathered into bulks, which are written again until the store takes them; writing a row twice changes
    nothing, so that a run that is repeated, or whose workers died, leaves every row there once. Rows that the store
    refuses, and those of a bulk that it could not take for `timeout` seconds, become dead letters; a store that is down
    then gets a trial every ten seconds, and stops no other sink.

    Args:
        endpoint: the store's URL. Besides the store's own options it takes `rows`, `bytes` (of a bulk), `age` (seconds
            until a bulk is written though it is not full), `timeout`, `call_timeout` (seconds), `concurrency` (bulks at
            a time, at most: as many as the store takes without errors), and `required=false` (a store that does not
            answer when the run starts does not end it).
        job: not used; every sink takes it.

    Input: batches of any schema that the store can hold.
    """

    store: ClassVar[type[Store]]

    def __init__(self, endpoint: Endpoint, job: str) -> None:
        super().__init__()
        self._store = self.store(endpoint)
        self._limits = _Limits.of(endpoint, self.store)
        endpoint.no_more_options(*self.store.OPTIONS, *_Limits._fields)
        # A variable that is not set is known here, not in a worker.
        _ = endpoint.target
        self._endpoint = endpoint
        self._error_handler: ErrorHandler | None = None
        self._write: _Write | None = None

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send rows that the store does not take to one of Beam's error handlers instead of failing the run."""
        self._error_handler = error_handler
        return self

    def prepare(self) -> None:
        """Connect, and create or check what the rows need there, so that it is known before the run.

        Raises:
            OutputError: if the store does not answer (unless `required=false`), or cannot hold the rows.
        """
        assert self._write is not None, "it is applied before it is prepared"
        try:
            self._store.connect(self._limits.call_timeout)
            try:
                self._store.ensure(self._write.schema)
            finally:
                self._store.close()
        except FabricBeamError:
            raise
        except Exception as error:
            if self._limits.required or not self._store.transient(error):
                raise _output_error(self._endpoint, error) from error
            self._write.ensures = True

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        label = step(pcoll.pipeline)
        batches, hint = as_batches(pcoll)
        schema = hint.empty().schema
        self._store.check(schema)
        write = beam.ParDo(
            _Write(label, self._store, self._limits, self._endpoint, schema, handled=self._error_handler is not None)
        )
        # Beam has made a copy.
        self._write = write.fn
        outputs = (
            batches
            | "Global" >> beam.WindowInto(GlobalWindows())
            | "Write" >> write.with_outputs(DEAD_LETTERS, main="written")
        )
        outputs[DEAD_LETTERS].element_type = BatchOf(arrow_schema(pl.DataFrame(schema=dead_letters.SCHEMA)))
        if self._error_handler is not None:
            self._error_handler.add_error_pcollection(outputs[DEAD_LETTERS])
        return outputs.written


class _Write(beam.DoFn):
    """Gathers rows, writes them in bulks, and keeps apart what the store does not take.

    Attributes:
        schema: of the rows.
        ensures: whether the store was not there before the run, so that its tables are made once it is.
    """

    def __init__(
        self, step: str, store: Store, limits: _Limits, endpoint: Endpoint, schema: pl.Schema, *, handled: bool
    ) -> None:
        self.schema = schema
        self.ensures = False
        self._step = step
        self._store = store
        self._limits = limits
        self._endpoint = endpoint
        self._handled = handled
        self._account = ledger.Account(step)
        self._retries = Metrics.counter("fabric_beam.stores", f"retries:{step}")
        self._latency = Metrics.distribution("fabric_beam.stores", f"milliseconds:{step}")

    def setup(self) -> None:
        self._bulks = Bulks(self._store, self._limits, self._endpoint, self.schema if self.ensures else None)
        self._tables: list[pl.DataFrame] = []
        self._oldest = 0.0

    def start_bundle(self) -> None:
        # What a failed bundle left is sent again by the runner.
        self._tables = []

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        if not self._tables:
            self._oldest = time.monotonic()
        self._tables.append(from_batch(batch))
        rows = sum(table.height for table in self._tables)
        if rows >= self._limits.rows or time.monotonic() - self._oldest > self._limits.age:
            for letters in self._flush():
                yield beam.pvalue.TaggedOutput(DEAD_LETTERS, letters)

    def finish_bundle(self) -> Iterator[Any]:
        for letters in self._flush():
            yield beam.pvalue.TaggedOutput(
                DEAD_LETTERS, WindowedValue(letters, GlobalWindow().max_timestamp(), [GlobalWindow()])
            )

    def teardown(self) -> None:
        self._bulks.close()

    def _flush(self) -> Iterator[pa.RecordBatch]:
        if not self._tables:
            return
        tables, self._tables = self._tables, []
        table = pl.concat(tables)
        refused = []
        for outcome in self._bulks.write(table):
            self._retries.inc(outcome.attempts - 1)
            self._latency.update(int(outcome.seconds * 1000))
            if outcome.refused is not None and outcome.refused.height:
                refused.append(outcome.refused)
        rejected = sum(each.height for each in refused)
        self._account.add("written", table.height - rejected)
        if rejected:
            letters = dead_letters.of_rows(pl.concat(refused), self._step)
            if not self._handled:
                raise RejectedRowsError(
                    f"{self._step}: {rejected} row(s) were not taken; the first: {letters['message'][0]} To keep going "
                    "and collect such rows, give it an error handler: .with_error_handler(handler)."
                )
            self._account.add("rejected", rejected)
            PROGRESS.add(dead_letters=rejected)
            yield to_batch(letters)


class Outcome(NamedTuple):
    """What became of a bulk.

    Args:
        refused: the rows that were not written, with their reasons; None if all were.
        attempts: how many times it was tried.
        seconds: how long that took.
    """

    refused: pl.DataFrame | None
    attempts: int
    seconds: float


class Bulks:
    """Writes tables to a store in bulks, over one connection that is opened when it is needed.

    Bulks are tried again (see `Calls`). How many are under way at a time grows by one with every round that the store
    takes, and is halved with every error.

    Args:
        store: what they are written to.
        limits: the options of its URL.
        endpoint: the URL, for messages.
        schema: of the rows, if the store is to be made ready for them when it is there.

    Source: Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance" (1989)
    """

    def __init__(self, store: Store, limits: _Limits, endpoint: Endpoint, schema: pl.Schema | None = None) -> None:
        self._store = store
        self._limits = limits
        self._endpoint = endpoint
        self._schema = schema
        self._concurrency = 1
        self._lock = threading.Lock()
        self._calls = Calls(store, limits.timeout, limits.call_timeout)
        self._pool = ThreadPoolExecutor(limits.concurrency, thread_name_prefix=f"{endpoint.scheme}-bulk")

    def write(self, table: pl.DataFrame) -> Iterator[Outcome]:
        """Write a table's rows; each outcome is of some of them.

        Raises:
            OutputError: if the store answers that it never will take them.
        """
        bulks = list(_split(table, self._limits.rows, self._limits.bytes))
        while bulks:
            under_way, bulks = bulks[: self._concurrency], bulks[self._concurrency :]
            outcomes = list(self._pool.map(self._write, under_way))
            failed = any(outcome.attempts != 1 for outcome in outcomes)
            self._concurrency = (
                max(1, self._concurrency // 2) if failed else min(self._limits.concurrency, self._concurrency + 1)
            )
            yield from outcomes

    def close(self) -> None:
        """Close the connection."""
        self._pool.shutdown()
        self._calls.close()

    def _write(self, bulk: pl.DataFrame) -> Outcome:
        started = time.monotonic()
        try:
            refused, attempts = self._calls(self._attempt, bulk)
        except Unavailable as error:
            left = self._store.abandon(bulk) if error.attempts else bulk
            reason = self._endpoint.clean(f"{self._endpoint.url} did not take it: {error}")
            refused, attempts = reject(left, UNAVAILABLE, reason), max(1, error.attempts)
        except Exception as error:
            raise _output_error(self._endpoint, error) from error
        return Outcome(refused, attempts, time.monotonic() - started)

    def _attempt(self, bulk: pl.DataFrame) -> pl.DataFrame | None:
        with self._lock:
            if self._schema is not None:
                self._store.ensure(self._schema)
                self._schema = None
        return self._store.write(bulk)


def _output_error(endpoint: Endpoint, error: Exception) -> Exception:
    if isinstance(error, FabricBeamError):
        return error
    return OutputError(endpoint.clean(f"{endpoint.url}: {type(error).__name__}: {error}"))


def _split(table: pl.DataFrame, rows: int, size: int) -> Iterator[pl.DataFrame]:
    """Parts of at most so many rows, and of about so many bytes."""
    fits = max(1, size * table.height // max(1, int(table.estimated_size())))
    yield from table.iter_slices(min(rows, fits))
