"""How soon rows can be queried, and rows a second into Pinot: `python -m benchmarks.pinot_sink`.

By way of Kafka, one row after the other is written while a query asks for it: the time runs from before the store's
write to the answer that has the row. Then all rows are written at once, by the store and by hand with confluent_kafka's
`produce()`, in turn, and counted in Pinot until they are all there; and, without Kafka, segment by segment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import polars as pl
import requests
from confluent_kafka import Producer

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.pinot.realtime import RealtimeStore
from fabric_beam.io.pinot.segments import SegmentStore
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.kafka import KafkaServer
from fabric_beam.testing.servers.pinot import PinotServer

_BULK = 50_000
_SEGMENT = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--single", type=int, default=200, help="rows that are written one by one")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    table = _events(options.rows)
    with KafkaServer() as kafka, PinotServer() as pinot:
        print(f"{options.rows:,} rows of {table.width} columns, {len(os.sched_getaffinity(0))} cores, ", end="")
        print(f"load {os.getloadavg()[0]:.0f}")
        fresh = _freshness(kafka, pinot, table.head(options.single))
        p50, p95 = statistics.median(fresh), statistics.quantiles(fresh, n=20)[-1]
        print(f"a row can be queried after: p50 {p50:.0f} ms, p95 {p95:.0f} ms, at most {max(fresh):.0f} ms")
        ways: dict[str, list[tuple[float, float, float]]] = {}
        for run in range(options.runs):
            for way, write in (("Fabric Beam's store", _by_store), ("by hand: produce()", _by_hand)):
                name = f"events_{run}_{len(ways)}_{time.time_ns()}"
                store = _store(f"{name}?kafka={kafka.address}&partitions=2", pinot, table.schema)
                wall, cpu = time.perf_counter(), time.process_time()
                write(store, kafka, name, table)
                took, cpu = time.perf_counter() - wall, time.process_time() - cpu
                _await(pinot, f"SELECT COUNT(*) FROM {name}", options.rows)
                ways.setdefault(way, []).append((took, cpu, time.perf_counter() - wall))
                store.close()
        for way, figures in ways.items():
            took, cpu, there = (statistics.median(column) for column in zip(*figures, strict=True))
            print(
                f"{way}: {options.rows / took:,.0f} rows/s into Kafka, {cpu / options.rows * 1e6:.1f} µs CPU a row, "
                f"{options.rows / there:,.0f} rows/s until queried"
            )
        segments = _store("segments", pinot, table.schema)
        wall, cpu = time.perf_counter(), time.process_time()
        for part in table.iter_slices(_SEGMENT):
            segments.write(part)
        took, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"segments: {options.rows / took:,.0f} rows/s, {cpu / options.rows * 1e6:.1f} µs CPU a row")


def _store(path: str, pinot: PinotServer, schema: pl.Schema) -> Any:
    endpoint = Endpoint.parse(f"pinot://{pinot.address}/{path}", SINKS)
    store = RealtimeStore(endpoint) if "kafka" in endpoint.options else SegmentStore(endpoint)
    store.connect(60)
    store.ensure(schema)
    return store


def _freshness(kafka: KafkaServer, pinot: PinotServer, table: pl.DataFrame) -> list[float]:
    """Milliseconds from the write of each row to the answer that has it."""
    store = _store(f"fresh?kafka={kafka.address}&partitions=2", pinot, table.schema)
    found = []
    for row in table.iter_slices(1):
        start = time.perf_counter()
        store.write(row)
        offset = row["offset"][0]
        _await(pinot, f'SELECT COUNT(*) FROM fresh WHERE "source" = \'a.log\' AND "offset" = {offset}', 1)
        found.append((time.perf_counter() - start) * 1000)
    store.close()
    # The first waits for the producer's id and the table's first consumers.
    return found[1:]


def _await(pinot: PinotServer, sql: str, expected: int) -> None:
    url = f"http://127.0.0.1:{pinot.broker}/query/sql"
    while True:
        answer = requests.post(url, json={"sql": sql}, timeout=60).json()
        if not answer.get("exceptions") and answer.get("resultTable", {}).get("rows") == [[expected]]:
            return
        time.sleep(0.005)


def _by_store(store: RealtimeStore, kafka: KafkaServer, topic: str, table: pl.DataFrame) -> None:
    for part in table.iter_slices(_BULK):
        store.write(part)


def _by_hand(store: RealtimeStore, kafka: KafkaServer, topic: str, table: pl.DataFrame) -> None:
    producer = Producer(
        {
            "bootstrap.servers": kafka.address,
            "enable.idempotence": True,
            "compression.type": "zstd",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    names = table.columns
    table = table.with_columns(pl.col("timestamp").dt.epoch("ms"))
    for part in table.iter_slices(_BULK):
        for values in zip(*(column.to_list() for column in part), strict=True):
            row = dict(zip(names, values, strict=True))
            key = f"{row['source']}:{row['offset']}"
            producer.produce(topic, json.dumps({**row, "_id": key, "_written": time.time_ns() // 1_000_000}), key)
        producer.flush()


def _events(rows: int) -> pl.DataFrame:
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    n = pl.int_range(rows, eager=True)
    return pl.DataFrame(
        {
            "timestamp": (start + n * 1000).cast(pl.Datetime("us", "UTC")),
            "service.name": "service " + (n % 20).cast(pl.String),
            "http.request.method": ["GET"] * rows,
            "url.path": "/path/" + (n % 1000).cast(pl.String),
            "http.response.status_code": 200 + n % 5,
            "duration": n * 0.001,
            "client.address": "10.0." + (n % 250).cast(pl.String) + "." + (n % 199).cast(pl.String),
            "source": ["a.log"] * rows,
            "offset": n * 150,
        }
    )


if __name__ == "__main__":
    main()
