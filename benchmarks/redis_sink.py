"""Rows a second into Redis beside a hand-written pipeline of its client: `python -m benchmarks.redis_sink`.

All ways write the same rows to the same server (one of its own, on this machine), in turn, several times over, into an
empty database. The hand-written loops take the rows from Python lists and send 1,000 commands at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import redis
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.measure import in_turn, show, timed
from benchmarks.rows import events
from fabric_beam import Read, WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.io.redis.sink import RedisStore
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.redis import RedisServer

_CHUNK = 1_000
_PIPELINE = "hash, a pipeline from Parquet on DirectRunner, start-up off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    table = events(options.rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(settings={"appendonly": "no"}) as server,
        redis.Redis(port=server.port) as client,
    ):
        rows, few = Path(folder) / "rows.parquet", Path(folder) / "few.parquet"
        table.write_parquet(rows)
        table.head(10).write_parquet(few)
        ways: dict[str, Callable[[], None]] = {
            "hash, Fabric Beam's store": lambda: _store(server, "", table),
            _PIPELINE: lambda: _sink(server, rows),
            "hash, by hand: DEL and HSET": lambda: _by_hand(client, table, _del_hset),
            "hash, by hand: HSET alone": lambda: _by_hand(client, table, _hset),
            "json, Fabric Beam's store": lambda: _store(server, "as=json", table),
            "json, by hand: SET": lambda: _by_hand(client, table, _set),
            "stream, Fabric Beam's store": lambda: _store(server, "as=stream&key=events", table),
            "stream, by hand: XADD (a replay doubles)": lambda: _by_hand(client, table, _xadd),
            "top, Fabric Beam's store": lambda: _store(server, f"as=top&key=top&{_TOP}", table),
            "top, by hand: ZADD": lambda: _by_hand(client, table, _zadd),
        }
        figures = in_turn(
            ways,
            {_PIPELINE: lambda: _sink(server, few)},
            runs=options.runs,
            rows=options.rows,
            server=server.pid,
            before=lambda: _empty(client),
        )
        client.flushall()
        _store(server, "", table)
        figures["hash, Fabric Beam's store, the rows being there"] = [
            timed(lambda: _store(server, "", table), server.pid) for _ in range(options.runs)
        ]
    print(
        f"{options.rows:,} rows of {table.width} columns, medians of {options.runs} runs, redis-py {redis.__version__} "
        f"{'with' if find_spec('hiredis') else 'without'} hiredis, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    show(figures, options.rows)


def _empty(client: Any) -> None:
    client.flushall()


def _store(server: RedisServer, query: str, table: pl.DataFrame) -> None:
    store = RedisStore(Endpoint.parse(f"redis://{server.address}/0?{query}", SINKS))
    store.connect(30)
    for part in table.iter_slices(store.ROWS):
        assert store.write(part) is None
    store.close()


def _sink(server: RedisServer, file: Path) -> None:
    options = PipelineOptions([], pickle_library="cloudpickle")
    with beam.Pipeline(runner=DirectRunner(), options=options) as pipeline:
        _ = pipeline | Read(f"parquet:{file}") | WriteTo(f"redis://{server.address}/0")


def _by_hand(
    client: Any, table: pl.DataFrame, command: Callable[[str, dict[str, Any]], Iterator[tuple[Any, ...]]]
) -> None:
    table = table.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    names = table.columns
    for part in table.iter_slices(_CHUNK):
        pipeline = client.pipeline(transaction=False)
        for values in zip(*(column.to_list() for column in part), strict=True):
            row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            for arguments in command(f"row:{row['source']}:{row['offset']}", row):
                pipeline.execute_command(*arguments)
        pipeline.execute(raise_on_error=False)


def _del_hset(key: str, row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    yield "DEL", key
    yield from _hset(key, row)


def _hset(key: str, row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    yield "HSET", key, *(text for field in row.items() for text in field)


def _set(key: str, row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    yield "SET", key, json.dumps(row)


def _xadd(key: str, row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    yield "XADD", "events", "*", *(text for field in row.items() for text in field)


_TOP = "member=url.path&score=http.response.status_code"


def _zadd(key: str, row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    yield "ZADD", "top", row["http.response.status_code"], row["url.path"]


if __name__ == "__main__":
    main()
