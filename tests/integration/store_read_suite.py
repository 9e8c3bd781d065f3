"""What every source that is a store must do, on its real server: a class of tests to inherit."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from fabric_beam import Read, WriteTo
from fabric_beam.errors import InputError
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.testing import check_source, read_all, run
from fabric_beam.testing.servers.process import ServerProcess, free_port
from tests.integration.store_suite import events

ROWS = 5_000


class StoreReadSuite(ABC):
    """Inherit it as `class TestReadRedis(StoreReadSuite)`, with a fixture `server` that every test may kill."""

    @pytest.fixture(autouse=True)
    def _server(self, server: ServerProcess) -> None:
        self.server = server
        self.clear()

    @abstractmethod
    def url(self, **options: Any) -> str:
        """What `Read` takes; options go to its query string. The same place in the whole of a test."""

    def target(self) -> str:
        """What `WriteTo` takes for the same rows."""
        return self.url()

    @abstractmethod
    def clear(self) -> None:
        """Remove everything there, or go to where nothing is."""

    @abstractmethod
    def missing(self) -> tuple[str, str]:
        """A URL of what is not there, and what the error says besides."""

    @abstractmethod
    def wrong_credentials(self) -> str:
        """A URL of the same place with the password `hunter2`, which is wrong."""

    @abstractmethod
    def elsewhere(self, port: int) -> str:
        """A URL of the same place on a port where nobody listens."""

    def test_what_was_written_is_read(self) -> None:
        """Every row once, in its types, with the `source` and `offset` that it had; and a limit is kept."""
        run(events(ROWS), WriteTo(self.target()))
        check_source(self.url(), events(ROWS))

    def test_many_ranges_hold_every_row_once(self) -> None:
        """However the rows fall into ranges and pages, and in the same types."""
        run(events(ROWS), WriteTo(self.target()))
        rows = read_all(Read(self.url(ranges=5, rows=333)))
        assert rows.select(events(1).columns).sort("offset").equals(events(ROWS))

    def test_killed_and_restarted_in_mid_read(self, tmp_path: Path) -> None:
        """The read waits for the server to come back and goes on where it was."""
        run(events(ROWS), WriteTo(self.target()))
        mark = tmp_path / "reading"
        seen = self.when_there(mark)
        options = PipelineOptions([], pickle_library="cloudpickle")
        with beam.Pipeline(runner=DirectRunner(), options=options) as p:
            rows = p | Read(self.url(rows=500, timeout=240))
            slowly = rows | beam.ParDo(Marks(str(mark)))
            slowly.element_type = rows.element_type
            _ = slowly | WriteTo(f"parquet:{tmp_path / 'out'}")
        seen.join()
        assert self.killed, "nothing was killed"
        read = pl.concat([pl.read_parquet(path) for path in (tmp_path / "out").rglob("*.parquet")])
        assert read.select(events(1).columns).sort("offset").equals(events(ROWS))

    def test_what_is_not_there_is_said_before_the_run(self) -> None:
        """With what there is, where the store can tell."""
        url, text = self.missing()
        with pytest.raises(InputError, match=text):
            read_all(Read(url))

    def test_nobody_listening_is_said_before_the_run(self) -> None:
        """With the address."""
        port = free_port()
        url = self.elsewhere(port)
        with pytest.raises(InputError, match=str(port)):
            read_all(Read(f"{url}{'&' if '?' in url else '?'}call_timeout=2"))

    def test_wrong_credentials_are_said_before_the_run(self) -> None:
        """Without the password."""
        with pytest.raises(InputError) as raised:
            read_all(Read(self.wrong_credentials()))
        assert "hunter2" not in str(raised.value)

    def when_there(self, mark: Path) -> threading.Thread:
        """Kill and restart the server once a file is there."""
        self.killed = False

        def wait() -> None:
            until = time.monotonic() + 240
            while time.monotonic() < until:
                if mark.exists():
                    self.server.kill()
                    time.sleep(1)
                    self.server.restart()
                    self.killed = True
                    return
                time.sleep(0.01)

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


class Marks(beam.DoFn):
    """Makes a file when the first batch comes, and takes its time."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        Path(self._mark).touch()
        time.sleep(0.2)
        yield batch
