"""Reading a Kafka topic by `kafka:` beside other ways: `python -m benchmarks.kafka_source`.

All ways run in turn, several times over, on the same topic of a broker that is started for it, each in a process of its
own that has read a thousand messages before. What a run of another thousand takes, such as the start of a pipeline, is
taken off for the rate after start-up. CPU is that of this process, librdkafka's threads among it; the broker is
another.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from fabric_beam.testing.servers.kafka import KafkaServer

TOPIC = "benchmark"
WAYS = {
    "tables": "`kafka:`, its reader alone",
    "read": "`kafka:`, `Read` on DirectRunner",
    "dicts": "confluent_kafka `consume()`, a dict a message",
    "tuned": "the same with this library's settings of librdkafka",
    "lists": "confluent_kafka `consume()`, a list a column, Polars",
}
_FEW = 1000
_ROWS = 16_384


def tables(address: str, messages: int) -> int:
    """What `ReadKafka` has under it."""
    from fabric_beam.io.kafka.reader import PartitionReader

    rows = 0
    with PartitionReader({"bootstrap.servers": address}, TOPIC, 0, 0, timeout=60) as reader:
        while reader.position < messages:
            rows += reader.read(messages, max_rows=_ROWS, max_wait=1).height
    return rows


def read(address: str, messages: int) -> int:
    """A whole pipeline, batches counted behind its source."""
    import apache_beam as beam

    from fabric_beam import Read
    from fabric_beam.runners.direct import DirectRunner

    with beam.Pipeline(runner=DirectRunner()) as p:
        counts = p | Read(f"kafka://{address}/{TOPIC}?stop={messages}") | beam.Map(lambda batch: batch.num_rows)
        _ = counts | beam.combiners.Count.Globally()
    return messages


def dicts(address: str, messages: int, **settings: str) -> int:
    """What a Python consumer does."""
    rows = 0
    for batch in _consumed(address, messages, settings):
        rows += len(
            [
                {
                    "key": message.key(),
                    "body": message.value(),
                    "headers": message.headers(),
                    "timestamp": message.timestamp()[1],
                    "source": f"{message.topic()}-{message.partition()}",
                    "offset": message.offset(),
                }
                for message in batch
            ]
        )
    return rows


def tuned(address: str, messages: int) -> int:
    """The same without the second that librdkafka waits each time it holds enough."""
    return dicts(address, messages, **{"fetch.queue.backoff.ms": "10", "fetch.message.max.bytes": "4194304"})


def lists(address: str, messages: int) -> int:
    """The fastest of what confluent_kafka's messages become a table by."""
    import polars as pl

    rows = 0
    for batch in _consumed(address, messages, {}):
        table = pl.DataFrame(
            {
                "key": pl.Series([message.key() for message in batch], dtype=pl.Binary),
                "body": pl.Series([message.value() for message in batch], dtype=pl.Binary).cast(pl.String),
                "headers": [message.headers() for message in batch],
                "timestamp": [message.timestamp()[1] for message in batch],
                "offset": [message.offset() for message in batch],
            }
        )
        rows += table.height
    return rows


def _consumed(address: str, messages: int, settings: dict[str, str]) -> Iterator[list[Any]]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "benchmark", "enable.auto.commit": False, **settings}
    )
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    rows = 0
    while rows < messages:
        batch = consumer.consume(min(_ROWS, messages - rows), 1.0)
        rows += len(batch)
        yield batch
    consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=150, help="bytes of each")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--run", nargs=3, metavar=("WAY", "ADDRESS", "MESSAGES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        way, address, messages = options.run
        _run(
            {"tables": tables, "read": read, "dicts": dicts, "tuned": tuned, "lists": lists}[way],
            address,
            int(messages),
        )
        return
    took: dict[str, list[list[float]]] = {way: [] for way in options.ways}
    with KafkaServer() as kafka:
        _fill(kafka.address, options.messages, options.size)
        for _ in range(options.runs):
            for way in options.ways:
                took[way].append(_measure(way, kafka.address, options.messages))
                cpu, wall, start = took[way][-1]
                print(f"{way}: {cpu:.2f} s CPU, {wall:.2f} s wall, start-up {start:.2f} s", file=sys.stderr)
    print(
        f"{options.messages:,} messages of {options.size} bytes, medians of {options.runs} runs, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| way | CPU a message | of `dicts` | messages a second | of `dicts` | after start-up | of `dicts` |")
    print("|---|---|---|---|---|---|---|")
    rows = options.messages
    medians = {way: [statistics.median(column) for column in zip(*took[way], strict=True)] for way in options.ways}
    base, base_wall, base_start = medians.get("dicts", [float("nan")] * 3)
    for way, (cpu, wall, start) in medians.items():
        after, base_after = wall - start, base_wall - base_start
        print(
            f"| {WAYS[way]} | {cpu / rows * 1e6:.2f} µs | {base / cpu:.1f} times less | {rows / wall:,.0f} | "
            f"{base_wall / wall:.1f} times more | {(rows - _FEW) / after:,.0f} | {base_after / after:.1f} times more |"
        )


def _run(way: Callable[[str, int], int], address: str, messages: int) -> None:
    way(address, _FEW)
    _, start = _timed(way, address, _FEW)
    print(json.dumps([*_timed(way, address, messages), start]))


def _timed(way: Callable[[str, int], int], address: str, messages: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.monotonic()
    assert way(address, messages) == messages
    return time.process_time() - cpu, time.monotonic() - wall


def _measure(way: str, address: str, messages: int) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.kafka_source", "--run", way, address, str(messages)]
    found: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _fill(address: str, messages: int, size: int) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(20)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 20, "queue.buffering.max.messages": messages + 1})
    for number in range(messages):
        producer.produce(TOPIC, f"{number:012}".ljust(size, "x"), partition=0)
        if number % 10_000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


if __name__ == "__main__":
    main()
