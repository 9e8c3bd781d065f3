"""What of writing to `kafka:` needs no server: URLs, options, and what a row becomes."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("confluent_kafka")

from fabric_beam import WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, UsageError
from fabric_beam.io.kafka import librdkafka
from fabric_beam.io.kafka.layout import MessageLayout
from fabric_beam.io.kafka.producer import Producer
from fabric_beam.io.kafka.sink import KafkaStore
from fabric_beam.schemes import SINKS

URL = "kafka://127.0.0.1:9092/events"


def store(query: str = "") -> KafkaStore:
    return KafkaStore(Endpoint.parse(f"{URL}?{query}", SINKS))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("partitions=0", "partitions='0' is not a whole number above zero"),
        ("replication=two", "replication='two' is not a whole number"),
        ("compression=zip", "is not one of none, gzip, snappy, lz4, zstd"),
        ("create=maybe", "is not true or false"),
        ("key={body", "a text with columns in braces"),
        ("headers=a,,b", "columns separated by commas"),
        ("hedaers=a", "Did you mean 'headers'"),
        ("librdkafka.transactional.id=x", "transactions"),
        ("librdkafka.sasl.password=${FABRIC_BEAM_NOT_SET}", "FABRIC_BEAM_NOT_SET"),
    ],
)
def test_what_is_wrong_in_a_url_is_said_while_the_pipeline_is_built(query: str, message: str) -> None:
    """The option, its value, and what it should be."""
    with pytest.raises(UsageError, match=message.replace("{", r"\{")):
        WriteTo(f"{URL}?{query}")


@pytest.mark.parametrize("url", ["kafka:events", "kafka://127.0.0.1:9092", "kafka://ann:hunter2@127.0.0.1:9092/events"])
def test_a_url_names_servers_and_a_topic(url: str) -> None:
    """And no password, which is never repeated."""
    with pytest.raises(UsageError, match="kafka:") as raised:
        WriteTo(url)
    assert "hunter2" not in str(raised.value)


def test_a_missing_client_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the pipeline is built."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    librdkafka.library.cache_clear()
    with pytest.raises(MissingExtraError, match=r'pip install "fabric-beam\[kafka\]"'):
        WriteTo(URL)


def test_secrets_are_not_sent_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store travels with the variable's name, and each worker looks it up."""
    monkeypatch.setenv("FABRIC_BEAM_TEST_SECRET", "hunter2")
    sent = pickle.dumps(store("librdkafka.sasl.password=${FABRIC_BEAM_TEST_SECRET}"))
    assert b"hunter2" not in sent
    assert pickle.loads(sent)._topic.settings()["sasl.password"] == "hunter2"


def _made(table: pl.DataFrame, query: str = "") -> Any:
    return MessageLayout(Endpoint.parse(f"{URL}?{query}", SINKS)).messages(table)


def test_nulls_have_no_address_and_empty_texts_have_one() -> None:
    """Of 0, as librdkafka takes it: a null value is a tombstone, an empty one is not."""
    made = _made(pl.DataFrame({"body": ["", None, "ab"], "k": [None, None, None]}), "value=body&key=k")
    value, key, identity = made.addresses
    assert [bool(address) for address in value] == [True, False, True]
    assert made.lengths[0].tolist() == [0, 0, 2]
    assert not key.any()
    assert identity.all()


def test_parts_of_larger_tables_have_their_own_texts() -> None:
    """A slice of a table is written, not what lies before it in memory."""
    table = pl.DataFrame({"body": [f"row {n}" for n in range(100)]})
    whole, part = _made(table, "value=body"), _made(table[10:20], "value=body")
    assert part.lengths[0].tolist() == whole.lengths[0][10:20].tolist()
    assert len(part.status) == 10


def test_messages_that_are_too_large_need_no_broker_to_be_refused() -> None:
    """Each has its error at once, and is not sent again to find out whose it was."""
    large = pl.DataFrame({"body": ["x" * 2000] * 10_000, "source": ["a"] * 10_000, "offset": range(10_000)})
    messages = _made(large)
    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "message.max.bytes": "1000"}, "t")
    assert producer.deliver(messages, np.arange(10_000), until=0)
    producer.close()
    assert messages.status.tolist() == [10] * 10_000
    assert messages.alone.all()
