"""What every sink of a store must do, on its real server: a class of tests to inherit."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import polars as pl
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.error_handling import ErrorHandler

from fabric_beam import WriteTo
from fabric_beam.batches import BatchOf, arrow_schema, to_batch
from fabric_beam.errors import OutputError
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.runners.spark import SparkRunner
from fabric_beam.testing.servers.process import ServerProcess, free_port
from tests.integration.soak import record

#: Seconds that a server stands still: longer than a call may take.
FROZEN = 30 if "FABRIC_BEAM_SOAK" in os.environ else 6
ROWS = 20_000
BATCH = 500
_TRIES = 5


def events(rows: int) -> pl.DataFrame:
    """Rows with an identity, a text, a number, and a time."""
    return pl.DataFrame(
        {
            "timestamp": [1_767_225_600_000_000 + n * 1_000_000 for n in range(rows)],
            "body": [f"row {n}" for n in range(rows)],
            "http.response.status_code": [200 + n % 5 for n in range(rows)],
            "source": ["a.log"] * rows,
            "offset": list(range(rows)),
        }
    ).with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


def write(table: pl.DataFrame, *urls: str, runner: Any = None, before: beam.DoFn | None = None) -> dict[str, int]:
    """Write a table in batches to every URL, with dead letters; returns the counters of Beam's result by name."""
    hint = BatchOf(arrow_schema(table))
    p = beam.Pipeline(runner=runner or DirectRunner(), options=PipelineOptions([], pickle_library="cloudpickle"))
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        table.write_ipc(file.name)
        with ErrorHandler(WriteTo(urls[0])) as letters:
            rows = p | beam.Create([file.name]) | beam.ParDo(Batches()).with_output_types(hint) | beam.Reshuffle()
            if before is not None:
                rows |= "Before" >> beam.ParDo(before).with_output_types(hint)
            rows.element_type = hint
            for url in urls[1:]:
                sink = WriteTo(url)
                _ = rows | sink.with_error_handler(letters)
                sink.sink.prepare()
        result = p.run()
        result.wait_until_finish()
    counters: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        counters[counter.key.metric.name] = counters.get(counter.key.metric.name, 0) + counter.committed
    return counters


def dead_letters(folder: Path) -> pl.DataFrame:
    """What the error handler wrote to `jsonl:FOLDER`."""
    return pl.concat(
        [pl.read_ndjson(path) for path in folder.rglob("*.jsonl") if path.stat().st_size] or [pl.DataFrame()]
    )


class Batches(beam.DoFn):
    """The batches of a table in a file: as elements of a pipeline they would be compressed with it."""

    def process(self, path: str) -> Iterator[pa.RecordBatch]:
        for part in pl.read_ipc(path).iter_slices(BATCH):
            yield to_batch(part)


class DiesOnce(beam.DoFn):
    """Ends its worker process in the middle of its work, the first time."""

    def __init__(self, mark: str, after: int) -> None:
        self._mark, self._after = mark, after
        self._seen = 0

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        self._seen += 1
        yield batch
        if self._seen == self._after:
            try:
                os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


class StoreSuite(ABC):
    """Inherit it as `class TestRedis(StoreSuite)`, with a fixture `server` that every test may kill and freeze.

    The server must keep what it acknowledged over `kill` and `restart`.
    """

    #: How many of the batches are all written before the next one comes.
    BEFORE: ClassVar[int] = int(0.7 * ROWS / BATCH)

    @pytest.fixture(autouse=True)
    def _server(self, server: ServerProcess) -> Iterator[None]:
        self.server = server
        self.clear()
        yield
        # Whatever a test did to it: the next finds it running.
        server.thaw()

    @abstractmethod
    def url(self, **options: Any) -> str:
        """What `WriteTo` takes; options go to its query string. The same place every time."""

    @abstractmethod
    def read(self) -> pl.DataFrame:
        """Everything that is stored there, with the columns of `events`."""

    @abstractmethod
    def clear(self) -> None:
        """Remove everything there."""

    @abstractmethod
    def with_refused(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with every hundredth row (the first of each hundred) such that the store refuses it for good.

        It may prepare the server for that.
        """

    @abstractmethod
    def wrong_credentials(self) -> str:
        """A URL with the password `hunter2`, which is wrong."""

    @abstractmethod
    def elsewhere(self, port: int) -> str:
        """A URL on a port where nobody listens."""

    def count(self) -> int:
        """How many rows are stored; overridden where that is cheaper than reading them."""
        return self.read().height

    def stored(self) -> pl.DataFrame:
        table = events(1)
        return self.read().select(table.columns).cast(dict(table.schema)).sort("offset")

    def test_a_repeated_run_replaces_and_adds_nothing(self, tmp_path: Path) -> None:
        """Every row once, in its types, in bulks of a few rows, several at a time; with its values of the last run."""
        before = events(ROWS).with_columns(pl.lit("before").alias("body"))
        for table in (before, events(ROWS)):
            counters = write(table, f"jsonl:{tmp_path}", self.url(rows=300, concurrency=4))
            assert self.stored().equals(table)
            assert [n for name, n in counters.items() if name.startswith("written:") and n] == [ROWS]

    def test_killed_and_restarted_in_mid_run(self, tmp_path: Path) -> None:
        """The run waits for the server to come back, and no row is lost, refused or twice."""
        self._befalls(
            "killed, back after 2 s", [self.server.kill, lambda: time.sleep(2), self.server.restart], 5, tmp_path
        )

    def test_frozen_in_mid_run(self, tmp_path: Path) -> None:
        """A server that stands still is waited for."""
        self._befalls(
            f"frozen for {FROZEN} s", [self.server.freeze, lambda: time.sleep(FROZEN), self.server.thaw], 2, tmp_path
        )

    def test_refused_rows_become_dead_letters(self, tmp_path: Path) -> None:
        """One row in a hundred is refused: it alone is a dead letter, with the row and the store's reason."""
        table = self.with_refused(events(2000))
        counters = write(table, f"jsonl:{tmp_path}", self.url())
        letters = dead_letters(tmp_path)
        assert sorted(letters["offset"]) == list(range(0, 2000, 100))
        assert [json.loads(payload)["offset"] for payload in letters["payload"]] == letters["offset"].to_list()
        assert letters["message"].str.len_chars().min() > 5  # type: ignore[operator]
        assert self.stored()["offset"].to_list() == [n for n in range(2000) if n % 100]
        assert [n for name, n in counters.items() if name.startswith("rejected:")] == [20]

    def test_down_for_the_whole_run(self, tmp_path: Path) -> None:
        """Its rows become dead letters, and another sink of the same run is complete."""
        url = f"{self._and(self.elsewhere(free_port()))}required=false&timeout=2&call_timeout=1"
        write(events(ROWS), f"jsonl:{tmp_path / 'dead'}", url, f"parquet:{tmp_path / 'out'}")
        letters = dead_letters(tmp_path / "dead")
        assert letters["rule"].unique().to_list() == ["unavailable"]
        assert sorted(letters["offset"]) == list(range(ROWS))
        assert sum(pl.read_parquet(path).height for path in (tmp_path / "out").rglob("*.parquet")) == ROWS

    def test_that_is_there_only_later(self, tmp_path: Path) -> None:
        """What it needs (tables, indexes) is made when it has come."""
        self.server.kill()
        later = threading.Timer(2, self.server.restart)
        later.start()
        write(events(1000), f"jsonl:{tmp_path}", self.url(required="false", call_timeout=3, timeout=240))
        later.join()
        assert dead_letters(tmp_path).height == 0
        assert self.stored().equals(events(1000))

    def test_nobody_listening_is_said_before_the_run(self, tmp_path: Path) -> None:
        """With the address."""
        port = free_port()
        with pytest.raises(OutputError, match=str(port)):
            write(events(1), f"jsonl:{tmp_path}", f"{self._and(self.elsewhere(port))}call_timeout=2")

    def test_wrong_credentials_are_said_before_the_run(self, tmp_path: Path) -> None:
        """Without the password."""
        with pytest.raises(OutputError) as raised:
            write(events(1), f"jsonl:{tmp_path}", self.wrong_credentials())
        assert "hunter2" not in str(raised.value)

    def test_a_worker_killed_on_spark(self, tmp_path: Path, spark: Any) -> None:
        """After the retry the store holds each row once."""
        mark = tmp_path / "died"
        after = random.randint(1, 10)
        before = DiesOnce(str(mark), after)
        write(events(ROWS), f"jsonl:{tmp_path / 'dead'}", self.url(rows=100), runner=SparkRunner(), before=before)
        assert mark.exists()
        same = self.stored().equals(events(ROWS))
        self._record("worker killed", after * BATCH, same)
        assert same, f"a worker was killed after {after} batches"

    @staticmethod
    def _and(url: str) -> str:
        return url + ("&" if "?" in url else "?")

    def _befalls(self, fault: str, steps: Sequence[Callable[[], Any]], call_timeout: int, folder: Path) -> None:
        """Something befalls the server at a random moment of a run, which must write every row once all the same."""
        for _ in range(_TRIES):
            self.clear()
            moment = random.uniform(0.02, 0.6) * ROWS
            Slowly.seen, Slowly.happened = 0, threading.Event()
            thread = threading.Thread(target=self._when_rows_are_there, args=(moment, steps))
            thread.start()
            # A server that is slow is not at fault for it: it is connected to and waited for as long as that takes.
            url = self.url(rows=100, call_timeout=call_timeout, timeout=240, required="false")
            write(events(ROWS), f"jsonl:{folder}", url, before=Slowly(self.BEFORE))
            thread.join()
            refused, stored = dead_letters(folder).height, self.stored()
            same = stored.equals(events(ROWS))
            if self.there < ROWS:
                self._record(fault, self.there, same and not refused)
            about = f"{fault} with {self.there} of {ROWS} rows there, {stored.height} at the end"
            assert refused == 0, about
            assert same, about
            if self.there < ROWS:
                return
        pytest.fail(f"{_TRIES} times the run was over before anything befell the server")

    def _when_rows_are_there(self, moment: float, steps: Sequence[Callable[[], Any]]) -> None:
        self.there = ROWS
        until = time.monotonic() + 240
        try:
            while time.monotonic() < until:
                if (count := self.count()) >= moment:
                    self.there = count
                    for step in steps:
                        step()
                        Slowly.happened.set()
                    return
                time.sleep(0.01)
        finally:
            Slowly.happened.set()

    def _record(self, fault: str, there: int, same: bool) -> None:
        record(store=self.server.name, fault=fault, rows=ROWS, there=there, same=same)


class Slowly(beam.DoFn):
    """Takes its time, and lets the last batches through once something has happened in the middle.

    Args:
        before: how many batches go before that.
    """

    seen = 0
    happened = threading.Event()

    def __init__(self, before: int) -> None:
        self._before = before

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        time.sleep(0.05)
        # All threads of the one process count together.
        Slowly.seen += 1
        if Slowly.seen > self._before:
            Slowly.happened.wait(240)
        yield batch
