"""Rows a second into Cassandra beside the client's own bulk loop: `python -m benchmarks.cassandra_sink`.

All ways write the same rows to the same server (one of its own, on this machine), in turn, several times over, into a
table of the same form that is empty. The loop by hand is `execute_concurrent_with_args` with a prepared statement, at
several concurrencies; it takes its rows from Python tuples, whose making is not counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import cassandra
import polars as pl
from apache_beam.options.pipeline_options import PipelineOptions
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster
from cassandra.concurrent import execute_concurrent_with_args

from benchmarks.measure import in_turn, show
from benchmarks.rows import events
from fabric_beam import Read, WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.io.cassandra.sink import CassandraStore
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.cassandra import CassandraServer

_CONCURRENCIES = (64, 128, 256)
_PIPELINE = "a pipeline from Parquet on DirectRunner, start-up off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--durable", action="store_true", help="wait for the disk at every write")
    options = parser.parse_args()
    table = events(options.rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        CassandraServer(durable=options.durable) as server,
        Cluster(
            ["127.0.0.1"],
            port=server.port,
            auth_provider=PlainTextAuthProvider(server.user, server.user),
            protocol_version=4,
        ) as cluster,
    ):
        session = cluster.connect()
        session.default_timeout = 120
        rows, few = Path(folder) / "rows.parquet", Path(folder) / "few.parquet"
        table.write_parquet(rows)
        table.head(10).write_parquet(few)
        url = server.url("bench/events?replication=1")
        state = server.url("bench/state?replication=1&partition=offset")
        ways: dict[str, Callable[[], None]] = {
            "Fabric Beam's store": lambda: _store(url, table),
            _PIPELINE: lambda: _sink(url, rows),
            "Fabric Beam's store, each row a partition": lambda: _store(state, table),
        }
        for concurrency in _CONCURRENCIES:
            ways[f"by hand, concurrency={concurrency}"] = _by_hand(session, table, "events", concurrency)
            ways[f"by hand, each row a partition, concurrency={concurrency}"] = _by_hand(
                session, table, "state", concurrency
            )
        # Both tables are there, and the compiled loops, and the server is warm.
        for _ in range(2):
            _store(url, table)
            _store(state, table)
        figures = in_turn(
            ways,
            {_PIPELINE: lambda: _sink(url, few)},
            runs=options.runs,
            rows=options.rows,
            server=server.pid,
            before=lambda: _empty(session),
        )
    print(
        f"{options.rows:,} rows of {table.width} columns, medians of {options.runs} runs, cassandra-driver "
        f"{cassandra.__version__}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    show(figures, options.rows)


def _empty(session: Any) -> None:
    for name in ("events", "state"):
        session.execute(f"TRUNCATE bench.{name}")


def _store(url: str, table: pl.DataFrame) -> None:
    store = CassandraStore(Endpoint.parse(url, SINKS))
    store.connect(30)
    for part in table.iter_slices(store.ROWS):
        assert store.write(part) is None
    store.close()


def _sink(url: str, file: Path) -> None:
    options = PipelineOptions([], pickle_library="cloudpickle")
    with beam.Pipeline(runner=DirectRunner(), options=options) as pipeline:
        _ = pipeline | Read(f"parquet:{file}") | WriteTo(url)


def _by_hand(session: Any, table: pl.DataFrame, name: str, concurrency: int) -> Callable[[], None]:
    if name == "events":
        table = table.with_columns(time_bucket=pl.col("timestamp").dt.truncate("1h"))
    rows = table.rows()

    def write() -> None:
        columns = ", ".join(f'"{column}"' for column in table.columns)
        places = ", ".join("?" * table.width)
        insert = session.prepare(f"INSERT INTO bench.{name} ({columns}) VALUES ({places})")
        execute_concurrent_with_args(session, insert, rows, concurrency=concurrency)

    return write


if __name__ == "__main__":
    main()
