"""Rows a second out of stores, beside loops of their clients: `python -m benchmarks.store_sources`.

All ways read the same rows from the same server (one of its own, on this machine), several times over. The hand-written
loops make tables of the client's dicts and check nothing; what Fabric Beam reads is typed, with the
key of each row, and each row once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import polars as pl
import pymongo
import redis

from fabric_beam import WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.io.mongodb.source import MongoReader
from fabric_beam.io.redis.source import RedisReader
from fabric_beam.io.store_reader import StoreReader
from fabric_beam.schemes import SOURCES
from fabric_beam.testing import run
from fabric_beam.testing.servers.mongodb import MongoServer
from fabric_beam.testing.servers.redis import RedisServer

_CHUNK = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    table = _events(options.rows)
    with ExitStack() as stack:
        mongodb = stack.enter_context(MongoServer(durable=False))
        valkey = stack.enter_context(RedisServer(settings={"appendonly": "no"}))
        client = stack.enter_context(redis.Redis(port=valkey.port, decode_responses=True))
        mongo_client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(f"mongodb://{mongodb.address}")
        documents = stack.enter_context(mongo_client).db.events
        place, server = f"mongodb://{mongodb.address}/db/events", f"redis://{valkey.address}/0"
        for url in (
            place,
            server,
            f"{server}?as=json&prefix=json",
            f"{server}?as=stream&key=events",
        ):
            run(list(table.iter_slices(10_000)), WriteTo(url))
        ways: dict[str, Callable[[], int]] = {
            "mongodb": lambda: _read(MongoReader, place),
            "mongodb, by hand: list(find())": lambda: pl.DataFrame(list(documents.find({}, {"_id": 0}))).height,
            "redis hash": lambda: _read(RedisReader, server),
            "redis hash, by hand: SCAN, pipelines of HGETALL": lambda: _hashes(client),
            "redis json": lambda: _read(RedisReader, f"{server}?as=json&prefix=json"),
            "redis stream": lambda: _read(RedisReader, f"{server}?as=stream&key=events"),
        }
        for way, read in ways.items():
            figures = [_timed(read) for _ in range(options.runs)]
            rows, wall, cpu = (statistics.median(each) for each in zip(*figures, strict=True))
            print(
                f"{way:50} {rows:>9,} rows {rows / wall:>9,.0f} rows/s {cpu / rows * 1e6:>6.1f} µs CPU a row",
                flush=True,
            )


def _timed(read: Callable[[], int]) -> tuple[int, float, float]:
    wall, cpu = time.monotonic(), time.process_time()
    rows = read()
    return rows, time.monotonic() - wall, time.process_time() - cpu


def _read(kind: type[StoreReader], url: str) -> int:
    reader = kind(Endpoint.parse(url, SOURCES))
    reader.connect(60)
    reader.schema(pl.Schema())
    rows = sum(page.table.height for split in reader.splits() for page in reader.read(split))
    reader.close()
    return rows


def _hashes(client: redis.Redis) -> int:
    def chunks() -> Iterator[list[dict[str, str]]]:
        keys = client.scan_iter("row:*", count=10_000, _type="hash")
        while chunk := list(islice(keys, _CHUNK)):
            pipeline = client.pipeline(transaction=False)
            for key in chunk:
                pipeline.hgetall(key)
            yield pipeline.execute()

    return sum(pl.DataFrame(chunk).height for chunk in chunks())


def _events(rows: int) -> pl.DataFrame:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "timestamp": [start + timedelta(milliseconds=n) for n in range(rows)],
            "http.request.method": ["GET"] * rows,
            "url.path": [f"/articles/{n % 5000}" for n in range(rows)],
            "http.response.status_code": [200 + n % 5 for n in range(rows)],
            "http.server.request.duration": [n / 1e4 for n in range(rows)],
            "client.address": [f"10.0.{n % 256}.{n % 250}" for n in range(rows)],
            "ok": [n % 7 > 0 for n in range(rows)],
            "source": ["access.log"] * rows,
            "offset": [n * 130 for n in range(rows)],
        }
    )


if __name__ == "__main__":
    main()
