"""`kafka:` read while something befalls the broker or its messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import polars as pl
import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition

from fabric_beam import Read
from fabric_beam.errors import InputError
from fabric_beam.progress import PROGRESS
from fabric_beam.testing.batches import read_all
from fabric_beam.testing.servers.kafka import KafkaServer
from tests.integration.kafka_topic import Topic


def bodies(url: str) -> list[str]:
    """All bodies of a topic of one partition, in order."""
    return [str(body) for body in read_all(Read(url)).sort("offset")["body"]]


class _Slow(beam.DoFn):
    def process(self, element: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        time.sleep(0.02)
        yield element


class _Slowly(beam.PTransform):
    """A source of which each batch takes its time."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._source = Read(url)

    def expand(self, pbegin: Any) -> beam.PCollection:
        batches = pbegin | self._source
        slow = batches | beam.ParDo(_Slow())
        slow.element_type = batches.element_type
        return slow


def _read_during(topic: Topic, meanwhile: Callable[[], None], options: str = "") -> pl.DataFrame:
    """Read a topic of 20,000 messages slowly, with so little fetched ahead that most is yet to come meanwhile."""
    few = "max_rows=100&librdkafka.queued.min.messages=100&librdkafka.fetch.message.max.bytes=20000"
    source = _Slowly(f"{topic.url()}{few}{options}")
    before = PROGRESS.rows
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read_all, source)
        while PROGRESS.rows == before and not reading.done():
            time.sleep(0.01)
        assert PROGRESS.rows - before < 15_000, "it was over before anything happened"
        meanwhile()
        return reading.result()


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(kafka: KafkaServer) -> None:
    """Every message once."""
    topic = Topic(kafka).create()
    lines = [f"line {n} {'x' * 100}" for n in range(20_000)]
    topic.write(lines)

    def kill() -> None:
        kafka.kill()
        time.sleep(1)
        kafka.restart()

    found = _read_during(topic, kill, "&timeout=240")
    assert found["offset"].to_list() == list(range(20_000))
    assert found["body"].to_list() == lines


def test_a_broker_that_stands_still_for_a_while_loses_nothing(kafka: KafkaServer) -> None:
    """Every message once."""
    topic = Topic(kafka).create()
    topic.write(["x" * 100] * 20_000)

    def freeze() -> None:
        kafka.freeze()
        time.sleep(5)
        kafka.thaw()

    found = _read_during(topic, freeze, "&timeout=240")
    assert found["offset"].to_list() == list(range(20_000))


def test_a_broker_that_stays_away_is_an_error(kafka: KafkaServer) -> None:
    """After `timeout` seconds, with the place where it was and what the client was told."""
    topic = Topic(kafka).create()
    topic.write(["x" * 100] * 20_000)
    try:
        with pytest.raises(Exception, match=rf"{topic.name}-0: nothing came .* 8 s, at offset \d+ of 20000: .*refused"):
            _read_during(topic, kafka.kill, "&timeout=8")
    finally:
        kafka.restart()


def test_deleted_messages_are_an_error(kafka: KafkaServer) -> None:
    """A range that retention took away is named; `earliest` is what is left."""
    topic = Topic(kafka).create()
    topic.write([str(n) for n in range(100)])
    [deleted] = topic.admin.delete_records([TopicPartition(topic.name, 0, 40)]).values()
    deleted.result(60)
    with pytest.raises(InputError, match=rf"offsets 10 to 39 of {topic.name}-0 are gone"):
        Read(f"{topic.url()}start=10")
    assert bodies(topic.url()) == [str(n) for n in range(40, 100)]


def test_messages_deleted_after_the_run_began_are_an_error(kafka: KafkaServer) -> None:
    """They were to be read, so their loss is told."""
    topic = Topic(kafka).create()
    topic.write([str(n) for n in range(100)])
    source = Read(topic.url())
    [deleted] = topic.admin.delete_records([TopicPartition(topic.name, 0, 40)]).values()
    deleted.result(60)
    with pytest.raises(Exception, match=rf"offsets 0 to 39 of {topic.name}-0 are gone"):
        read_all(source)
