"""A topic of a real broker, as the tests of `kafka:` see it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fabric_beam.endpoints import Endpoint
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.kafka import KafkaServer

pytest.importorskip("confluent_kafka")

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from fabric_beam.io.kafka.sink import KafkaStore

#: The time of the first message that `write` writes: 2026-01-01T00:00:00Z, in ms.
NOON = 1_767_225_600_000


class Topic:
    """A topic's name, and what is in it."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.name = f"events-{uuid.uuid4().hex[:12]}"
        self.admin = AdminClient({"bootstrap.servers": server.address, "log_level": 0})

    def create(self, partitions: int = 1, **config: str) -> Topic:
        """The topic, with settings whose dots are written as underscores."""
        settings = {name.replace("_", "."): value for name, value in config.items()}
        self.admin.create_topics([NewTopic(self.name, partitions, 1, config=settings)])[self.name].result(60)
        # The controller has it then; the broker hears of it a moment later.
        eventually(lambda: len(self.partitions()) == partitions)
        return self

    def set(self, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.name, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(60)
        place = ConfigResource(ConfigResource.Type.TOPIC, self.name)
        eventually(lambda: self.admin.describe_configs([place])[place].result(60)[name].value == value)

    def url(self, **options: Any) -> str:
        query = "&".join(f"{name.replace('__', '.')}={value}" for name, value in options.items())
        return f"kafka://{self.server.address}/{self.name}?{query}"

    def store(self, **options: Any) -> KafkaStore:
        """A connected store."""
        store = KafkaStore(Endpoint.parse(self.url(**options), SINKS))
        store.connect(30)
        return store

    def partitions(self) -> list[int]:
        known = self.admin.list_topics(timeout=60).topics.get(self.name)
        return sorted(known.partitions) if known else []

    def count(self) -> int:
        """How many messages it has ever been given."""
        with _consumer(self.server) as consumer:
            places = [TopicPartition(self.name, number) for number in self.partitions()]
            return sum(consumer.get_watermark_offsets(place, timeout=60)[1] for place in places)

    def messages(self) -> list[Any]:
        """All messages, by partition and offset."""
        with _consumer(self.server) as consumer:
            wanted = 0
            places = [TopicPartition(self.name, number, 0) for number in self.partitions()]
            for place in places:
                wanted += consumer.get_watermark_offsets(place, timeout=60)[1]
            consumer.assign(places)
            found: list[Any] = []
            until = time.monotonic() + 120
            while len(found) < wanted and time.monotonic() < until:
                found += consumer.consume(10_000, 0.2)
            assert len(found) == wanted
            return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def write(self, bodies: Sequence[bytes | str | None], partition: int = 0, **options: Any) -> None:
        producer = self.producer()
        for number, body in enumerate(bodies):
            producer.produce(
                self.name, body, partition=partition, timestamp=NOON + number, **options, on_delivery=delivered
            )
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(120) == 0

    def producer(self, **settings: Any) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.server.address,
                "linger.ms": 5,
                "queue.buffering.max.messages": 2_000_000,
                **settings,
            }
        )


def _consumer(server: KafkaServer) -> Any:
    return Consumer(
        {"bootstrap.servers": server.address, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}
    )


def values(topic: Topic) -> list[Any]:
    return [json.loads(message.value()) for message in topic.messages()]


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def delivered(error: Any, message: Any) -> None:
    assert error is None
