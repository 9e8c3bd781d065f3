"""`kafka:` written, to a real broker."""

from __future__ import annotations

import ctypes
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam import Read, WriteTo
from fabric_beam.errors import OutputError, SchemaError, UsageError
from fabric_beam.testing import read_all, run
from fabric_beam.testing.batches import collect_with_dead_letters
from fabric_beam.testing.servers.kafka import KafkaServer
from fabric_beam.testing.servers.process import free_port
from tests.integration.kafka_topic import Topic, values
from tests.integration.store_suite import ROWS, StoreSuite, dead_letters, events, write

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException


class SaslKafka(KafkaServer):
    """A broker that also listens where TLS is spoken and a password asked for: `ann` has `secret`."""

    def __init__(self, keys: str) -> None:
        super().__init__()
        self.locked = f"127.0.0.1:{free_port()}"
        self._keys = keys

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";'
        return {
            **settings,
            "listeners": f"{settings['listeners']},SASL_SSL://{self.locked}",
            "advertised.listeners": f"{settings['advertised.listeners']},SASL_SSL://{self.locked}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
            "listener.name.sasl_ssl.ssl.keystore.type": "PEM",
            "listener.name.sasl_ssl.ssl.keystore.location": self._keys,
        }


@pytest.fixture
def server(kafka: KafkaServer) -> KafkaServer:
    return kafka


@pytest.fixture(scope="module")
def sasl_kafka(certificate: tuple[Path, Path]) -> Iterator[SaslKafka]:
    keys = certificate[0].with_name("both.pem")
    keys.write_text(certificate[1].read_text() + certificate[0].read_text())
    with SaslKafka(str(keys)) as server:
        yield server


@pytest.fixture
def topic(kafka: KafkaServer) -> Topic:
    """A topic that is not there yet."""
    return Topic(kafka)


class TestKafka(StoreSuite):
    """The suite of every store. A reader that goes by `id` takes the last message of each row."""

    @pytest.fixture(autouse=True)
    def _request(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    def url(self, **options: Any) -> str:
        return self.topic.url(key="{source}:{offset}", **options)

    def read(self) -> pl.DataFrame:
        messages = self.topic.messages()
        self.messages = len(messages)
        last = {dict(message.headers())["id"]: message.value() for message in messages}
        if not last:
            return events(0)
        table = pl.read_ndjson(io.BytesIO(b"\n".join(last.values())), infer_schema_length=None)
        return table.with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))

    def count(self) -> int:
        return self.topic.count()

    def clear(self) -> None:
        self.topic = Topic(self.server).create(partitions=3)

    def with_refused(self, table: pl.DataFrame) -> pl.DataFrame:
        self.topic.set("max.message.bytes", "2000")
        large = pl.lit("x" * 5000)
        return table.with_columns(pl.when(pl.col("offset") % 100 == 0).then(large).otherwise("body").alias("body"))

    def wrong_credentials(self) -> str:
        server = self.request.getfixturevalue("sasl_kafka")
        login = "librdkafka.security.protocol=SASL_PLAINTEXT&librdkafka.sasl.mechanism=PLAIN"
        return f"kafka://{server.locked}/t?{login}&librdkafka.sasl.username=ann&librdkafka.sasl.password=hunter2"

    def elsewhere(self, port: int) -> str:
        return f"kafka://127.0.0.1:{port}/events"

    def test_killed_and_restarted_in_mid_run(self, tmp_path: Path) -> None:
        """Every row is one message, not only for readers that go by `id`."""
        super().test_killed_and_restarted_in_mid_run(tmp_path)
        assert self.messages == ROWS

    def test_frozen_in_mid_run(self, tmp_path: Path) -> None:
        """Every row is one message, not only for readers that go by `id`."""
        super().test_frozen_in_mid_run(tmp_path)
        assert self.messages == ROWS


def test_a_topic_is_created_as_asked_or_not_at_all(topic: Topic) -> None:
    """With so many partitions; with create=false its absence is an error, with the nearest name."""
    other = Topic(topic.server).create()
    topic.name = f"{other.name}x"
    with pytest.raises(OutputError, match=f"Did you mean '{other.name}'"):
        topic.store(create="false")
    assert topic.partitions() == []
    run(events(1), WriteTo(topic.url(partitions=5, replication=1)))
    assert topic.partitions() == [0, 1, 2, 3, 4]
    with pytest.raises(KafkaException):
        Topic(topic.server).store(replication=3)


def test_a_broker_that_refuses_a_batch_costs_only_the_rows_to_blame(topic: Topic) -> None:
    """Too large for the topic though not for the client: each of the batch is tried by itself."""
    topic.create(max_message_bytes="3000")
    table = events(50).with_columns(
        pl.when(pl.col("offset") == 20)
        .then(pl.lit("".join(map(chr, range(1000, 6000)))))
        .otherwise("body")
        .alias("body")
    )
    _, dead = collect_with_dead_letters(table, WriteTo(topic.url(librdkafka__message__max__bytes=1_000_000)))
    assert dead["offset"].to_list() == [20]
    assert "large" in dead["message"][0]
    assert sorted(value["offset"] for value in values(topic)) == [n for n in range(50) if n != 20]


def test_a_full_queue_is_waited_for(topic: Topic) -> None:
    """librdkafka's queue holds ten messages; all arrive, in order."""
    run(events(2000), WriteTo(topic.url(value="body", librdkafka__queue__buffering__max__messages=10)))
    assert [message.value().decode() for message in topic.messages()] == events(2000)["body"].to_list()


def test_a_bulk_that_is_tried_again_goes_on_where_it_was(topic: Topic) -> None:
    """Frozen for longer than a call may take: the next call waits for what is on its way, and produces none again."""
    store, table = topic.store(), events(3000)
    store.write(events(1))
    store._timeout = 0.5
    topic.server.freeze()
    try:
        for _ in range(2):
            with pytest.raises(KafkaException, match=r"3000 message\(s\) were not acknowledged") as raised:
                store.write(table)
            assert store.transient(raised.value)
    finally:
        topic.server.thaw()
    store._timeout = 60
    assert store.write(table) is None
    assert store.abandon(table) is table
    store.close()
    assert topic.count() == 3001


def test_what_is_given_up_is_not_written_later(topic: Topic) -> None:
    """Rows in librdkafka's queue when a bulk becomes dead letters stay out of the topic; the next bulk goes in."""
    store, table = topic.store(librdkafka__queue__buffering__max__messages=100_000), events(3000)
    store.write(events(1))
    store._timeout = 0.5
    topic.server.kill()
    try:
        with pytest.raises(KafkaException) as raised:
            store.write(table)
        assert store.transient(raised.value)
        assert store.abandon(table).equals(table)
    finally:
        topic.server.restart()
    store._timeout = 60
    assert store.write(events(2)) is None
    store.close()
    assert topic.count() == 3


def test_a_producer_that_failed_for_good_is_replaced(topic: Topic) -> None:
    """A fatal error of idempotence: the next attempt has a new producer, and the rows are there."""
    store, table = topic.store(), events(100)
    store.write(events(1))
    producer = store._producer
    assert producer is not None
    producer._library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    producer._library.rd_kafka_test_fatal_error(producer._client, 45, b"made up")
    with pytest.raises(KafkaException) as raised:
        store.write(table)
    assert store.transient(raised.value)
    assert store.write(table) is None
    store.close()
    assert topic.count() == 101


def test_several_threads_write_over_one_producer(topic: Topic) -> None:
    """Each gets the reports of its own messages, whoever takes them."""
    store = topic.store(partitions=3)
    tables = [events(5000).with_columns(pl.lit(f"{n}").alias("source")) for n in range(4)]
    outcomes: list[Any] = [0] * 4

    def go(n: int) -> None:
        outcomes[n] = [store.write(part) for part in tables[n].iter_slices(500)]

    threads = [threading.Thread(target=go, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert outcomes == [[None] * 10] * 4
    assert topic.count() == 20_000


def test_with_credentials(
    sasl_kafka: SaslKafka, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over TLS a password from the environment lets one in; a wrong one is told at once, and never shown; neither is
    given to a broker whose certificate is not known."""
    topic = Topic(sasl_kafka)
    login = {"librdkafka.security.protocol": "SASL_SSL", "librdkafka.sasl.mechanism": "PLAIN"}
    login |= {"librdkafka.sasl.username": "ann", "librdkafka.sasl.password": "${FABRIC_BEAM_TEST_PASSWORD}"}
    stranger = topic.url(**login).replace(sasl_kafka.address, sasl_kafka.locked)
    url = f"{stranger}&librdkafka.ssl.ca.location={certificate[0]}"
    monkeypatch.setenv("FABRIC_BEAM_TEST_PASSWORD", "secret")
    run(events(10), WriteTo(url))
    assert topic.count() == 10
    assert read_all(Read(url.replace("?", "?start=earliest&"))).height == 10
    with pytest.raises(OutputError, match="certificate verify failed"):
        write(events(1), f"jsonl:{tmp_path}", stranger)
    monkeypatch.setenv("FABRIC_BEAM_TEST_PASSWORD", "hunter2")
    with pytest.raises(OutputError, match="uthentication") as raised:
        write(events(1), f"jsonl:{tmp_path}", url)
    sink = WriteTo(url)
    assert "hunter2" not in str(raised.value) + sink.url + sink.default_label()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "{bdy}"}, SchemaError, "Did you mean 'body'"),
        ({"headers": "body,ofset"}, SchemaError, "Did you mean 'offset'"),
        ({"value": "payload"}, SchemaError, "no column 'payload'"),
        ({"value": "offset"}, SchemaError, "Int64"),
        ({"timestamp": "offset"}, SchemaError, "not a Datetime"),
        ({"id": "row"}, SchemaError, "no column 'row'"),
        ({"librdkafka__linger__mss": "1"}, UsageError, "linger.mss"),
        ({"librdkafka__acks": "lots"}, UsageError, "acks"),
    ],
)
def test_what_does_not_fit_is_said_before_the_run(
    topic: Topic, options: dict[str, str], error: type[Exception], message: str
) -> None:
    """Columns that are missing or of a wrong type, and settings that librdkafka does not know."""
    with pytest.raises(error, match=message):
        store = topic.store(**options)
        store.check(events(1).schema)


def test_errors_that_pass_and_errors_that_do_not(topic: Topic) -> None:
    """A broker that is away or slow passes; what is not allowed does not."""
    store = topic.store()
    passing = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError.NOT_ENOUGH_REPLICAS, KafkaError._FATAL)
    lasting = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION, KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert [store.transient(KafkaException(KafkaError(code))) for code in passing] == [True] * 4
    assert [store.transient(KafkaException(KafkaError(code))) for code in lasting] == [False] * 3
    assert not store.transient(ValueError("x"))


def test_the_dead_letters_of_a_sink_can_go_to_a_topic(topic: Topic, tmp_path: Path) -> None:
    """What another sink refuses arrives in the topic of dead letters as JSON of the row."""
    refusing = Topic(topic.server).create(max_message_bytes="1000")
    table = events(10).with_columns(
        pl.when(pl.col("offset") == 3).then(pl.lit("x" * 2000)).otherwise("body").alias("body")
    )
    write(table, topic.url(), refusing.url())
    (letter,) = topic.messages()
    assert json.loads(letter.value())["offset"] == 3
    assert dict(letter.headers())["rule"] == b"refused"
    assert dead_letters(tmp_path).height == 0
