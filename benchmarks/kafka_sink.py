"""`kafka:` written beside hand-written loops over confluent_kafka: `python -m benchmarks.kafka_sink`.

The same rows go to the same broker as the same messages: JSON, and the header `id`. Ways take turns, so that each meets
the same moods of the machine; CPU is this process's, the broker's is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
from confluent_kafka import Producer

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.kafka.sink import KafkaStore
from fabric_beam.io.store import identities
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.kafka import KafkaServer

_SETTINGS: dict[str, object] = {"log_level": 0, "enable.idempotence": True, "linger.ms": 5, "compression.type": "zstd"}
_BULK = 50_000


def rows(count: int) -> pl.DataFrame:
    """Access-log events, about 400 bytes of JSON each."""
    number = pl.int_range(count)
    path = pl.format("/presentations/{}", number % 977)
    return pl.select(
        timestamp=(pl.lit(datetime(2026, 1, 1, tzinfo=UTC)) + pl.duration(seconds=number)).cast(
            pl.Datetime("us", "UTC")
        ),
        body=pl.format('83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET {} HTTP/1.1" 200 {}', path, number),
        **{
            "client.address": pl.format("10.0.{}.{}", number % 256, number % 199),
            "url.path": path,
            "http.response.status_code": 200 + number % 5,
            "http.response.body.size": number,
            "user_agent.original": pl.lit("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36"),
            "severity_text": pl.lit("INFO"),
        },
        source=pl.lit("logs/access.log"),
        offset=number * 180,
    )


def fabric(address: str, topic: str) -> Callable[[pl.DataFrame], None]:
    store = KafkaStore(Endpoint.parse(f"kafka://{address}/{topic}?partitions=4", SINKS))
    store.connect(30)

    def write(table: pl.DataFrame) -> None:
        for bulk in table.iter_slices(_BULK):
            assert store.write(bulk) is None

    return write


def best_loop(address: str, topic: str) -> Callable[[pl.DataFrame], None]:
    """Polars makes the JSON, only failures are reported, and one flush ends it all."""
    failed: list[object] = []
    settings = {**_SETTINGS, "delivery.report.only.error": True, "on_delivery": lambda error, _: failed.append(error)}
    producer = _producer(address, settings)
    produce = producer.produce

    def write(table: pl.DataFrame) -> None:
        values = table.select(pl.struct(pl.all()).struct.json_encode().cast(pl.Binary)).to_series().to_list()
        for value, identity in zip(values, identities(table, []).to_list(), strict=True):
            while True:
                try:
                    produce(topic, value, headers=[("id", identity)])
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0 and not failed

    return write


def usual_loop(address: str, topic: str) -> Callable[[pl.DataFrame], None]:
    """As in the client's examples: a dict and a callback for each message."""
    failed: list[object] = []
    producer = _producer(address, _SETTINGS)

    def report(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    def write(table: pl.DataFrame) -> None:
        for row in table.to_dicts():
            identity = f"{row['source']}:{row['offset']}"
            row["timestamp"] = row["timestamp"].isoformat()
            while True:
                try:
                    producer.produce(topic, json.dumps(row), headers=[("id", identity)], on_delivery=report)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0 and not failed

    return write


def transactions(address: str, topic: str) -> Callable[[pl.DataFrame], None]:
    """The best loop, with a transaction a bulk: what the sink does not offer."""
    producer = _producer(
        address, {**_SETTINGS, "delivery.report.only.error": True, "transactional.id": uuid.uuid4().hex}
    )
    producer.init_transactions(30)

    def write(table: pl.DataFrame) -> None:
        for bulk in table.iter_slices(_BULK):
            producer.begin_transaction()
            values = bulk.select(pl.struct(pl.all()).struct.json_encode().cast(pl.Binary)).to_series().to_list()
            for value, identity in zip(values, identities(bulk, []).to_list(), strict=True):
                producer.produce(topic, value, headers=[("id", identity)])
            producer.commit_transaction(30)

    return write


WAYS = {
    "fabric": (fabric, "Fabric Beam's sink"),
    "best_loop": (best_loop, "`produce()`, at its best"),
    "usual_loop": (usual_loop, "`produce()`, dicts and callbacks"),
    "transactions": (transactions, "at its best, a transaction a bulk"),
}


def _producer(address: str, settings: dict[str, object]) -> Producer:
    return Producer({"bootstrap.servers": address, "queue.buffering.max.messages": 1_000_000, **settings})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    table = rows(options.rows)
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with KafkaServer() as server:
        writers = {way: make(server.address, "events") for way, (make, _) in WAYS.items()}
        for write in writers.values():
            write(table[:1000])
        for _ in range(options.runs):
            for way, write in writers.items():
                cpu, wall = time.process_time(), time.perf_counter()
                write(table)
                taken[way].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(
        f"{options.rows:,} rows, medians of {options.runs} runs, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f}\n\n| way | rows a second | wall against Fabric Beam | CPU a row |\n"
        "|---|---|---|---|"
    )
    ours = statistics.median(wall for _, wall in taken["fabric"])
    for way, (_, name) in WAYS.items():
        cpu, wall = (statistics.median(times) for times in zip(*taken[way], strict=True))
        print(f"| {name} | {options.rows / wall:,.0f} | {wall / ours:.2f} | {cpu / options.rows * 1e6:.2f} µs |")


if __name__ == "__main__":
    main()
