"""`kafka:` written, to a real broker."""

from __future__ import annotations

import base64
import ctypes
import io
import json
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam import WriteTo
from fabric_beam import dead_letters as letters
from fabric_beam.endpoints import SINKS, Endpoint, Read
from fabric_beam.errors import OutputError, SchemaError, UsageError
from fabric_beam.kernel import reject
from fabric_beam.testing import run
from fabric_beam.testing.batches import collect_with_dead_letters, read_all
from fabric_beam.testing.servers.kafka import KafkaServer
from fabric_beam.testing.servers.process import free_port
from tests.integration.store_suite import ROWS, StoreSuite, dead_letters, events, write

pytest.importorskip("confluent_kafka")

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from fabric_beam.io.kafka.sink import KafkaStore

pytestmark = pytest.mark.timeout(180)


class Topic:
    """A topic's name, and what is in it."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.name = f"events-{uuid.uuid4().hex[:12]}"
        self.admin = AdminClient({"bootstrap.servers": server.address, "log_level": 0})

    def create(self, partitions: int = 1, **config: str) -> Topic:
        """The topic, with settings whose dots are written as underscores."""
        settings = {name.replace("_", "."): value for name, value in config.items()}
        self.admin.create_topics([NewTopic(self.name, partitions, 1, config=settings)])[self.name].result(20)
        return self

    def set(self, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.name, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(20)

    def url(self, **options: Any) -> str:
        query = "&".join(f"{name.replace('__', '.')}={value}" for name, value in options.items())
        return f"kafka://{self.server.address}/{self.name}?{query}"

    def store(self, **options: Any) -> KafkaStore:
        """A connected store."""
        store = KafkaStore(Endpoint.parse(self.url(**options), SINKS))
        store.connect(10)
        return store

    def partitions(self) -> list[int]:
        known = self.admin.list_topics(timeout=20).topics.get(self.name)
        return sorted(known.partitions) if known else []

    def count(self) -> int:
        """How many messages it has ever been given."""
        with _consumer(self.server) as consumer:
            places = [TopicPartition(self.name, number) for number in self.partitions()]
            return sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)

    def messages(self) -> list[Any]:
        """All messages, by partition and offset."""
        with _consumer(self.server) as consumer:
            wanted = 0
            places = [TopicPartition(self.name, number, 0) for number in self.partitions()]
            for place in places:
                wanted += consumer.get_watermark_offsets(place, timeout=20)[1]
            consumer.assign(places)
            found: list[Any] = []
            until = time.monotonic() + 30
            while len(found) < wanted and time.monotonic() < until:
                found += consumer.consume(10_000, 0.2)
            assert len(found) == wanted
            return sorted(found, key=lambda message: (message.partition(), message.offset()))


def _consumer(server: KafkaServer) -> Any:
    return Consumer(
        {"bootstrap.servers": server.address, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}
    )


def values(topic: Topic) -> list[Any]:
    return [json.loads(message.value()) for message in topic.messages()]


class SaslKafka(KafkaServer):
    """A broker that also listens where a password is asked for: `ann` has `secret`."""

    def __init__(self) -> None:
        super().__init__()
        self.locked = f"127.0.0.1:{free_port()}"

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";'
        return {
            **settings,
            "listeners": f"{settings['listeners']},SASL_PLAINTEXT://{self.locked}",
            "advertised.listeners": f"{settings['advertised.listeners']},SASL_PLAINTEXT://{self.locked}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
        }


@pytest.fixture
def server(kafka: KafkaServer) -> KafkaServer:
    return kafka


@pytest.fixture(scope="module")
def sasl_kafka() -> Iterator[SaslKafka]:
    with SaslKafka() as server:
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


def test_every_type_has_its_json(topic: Topic) -> None:
    """Times as RFC 3339, binary as base64, decimals as text, the rest as JSON has it; nulls stay."""
    row = {
        "timestamp": datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC),
        "local": datetime(2026, 1, 1, 12),
        "day": date(2026, 1, 1),
        "took": timedelta(seconds=1.5),
        "text": 'a "b"\n\\ é 🙂',
        "count": 2**64 - 1,
        "ratio": 0.25,
        "nan": float("nan"),
        "ok": True,
        "price": Decimal("1.50"),
        "bytes": b"\xff\x00",
        "tags": ["a", None],
        "http": {"status": 200, "took": None},
    }
    table = pl.DataFrame([row], schema_overrides={"count": pl.UInt64}, strict=False)
    empty = table.clear().select(pl.lit(None, dtype).alias(name) for name, dtype in table.schema.items())
    table = pl.concat([table, pl.DataFrame([dict.fromkeys(row)], schema=table.schema)]) if empty.width else table
    run(table, WriteTo(topic.url()))
    first, second = values(topic)
    assert first == {
        "timestamp": "2026-01-01T12:00:00.123456Z",
        "local": "2026-01-01T12:00:00.000000",
        "day": "2026-01-01",
        "took": 1_500_000,
        "text": row["text"],
        "count": 2**64 - 1,
        "ratio": 0.25,
        "nan": None,
        "ok": True,
        "price": "1.50",
        "bytes": base64.b64encode(b"\xff\x00").decode(),
        "tags": ["a", None],
        "http": {"status": 200, "took": None},
    }
    assert set(second) == set(row) and not any(second[name] for name in row)


def test_key_headers_and_time(topic: Topic) -> None:
    """Columns and templates as text; a row without a value for its key has none; a null is a null header."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    table = pl.DataFrame(
        {
            "service.name": ["api", None, ""],
            "n": [1, 2, None],
            "at": [when] * 3,
            "source": ["a"] * 3,
            "offset": [0, 1, 2],
        }
    )
    run(table, WriteTo(topic.url(key="{service.name}/{n}", headers="n,service.name", timestamp="at")))
    found = {message.headers()[-1][1]: message for message in topic.messages()}
    assert [found[name].key() for name in (b"a:0", b"a:1", b"a:2")] == [b"api/1", None, None]
    assert found[b"a:1"].headers() == [("n", b"2"), ("service.name", None), ("id", b"a:1")]
    assert found[b"a:2"].headers() == [("n", None), ("service.name", b""), ("id", b"a:2")]
    assert {message.timestamp()[1] for message in found.values()} == {1_767_225_600_000}


def test_one_column_as_value(topic: Topic) -> None:
    """Bytes and text as they are, an empty one is empty, a null is a tombstone; keyed by a binary column."""
    table = pl.DataFrame({"payload": [b"\xff\x00", b"", None], "k": [b"\x01", b"\x02", b"\x03"], "offset": [0, 1, 2]})
    run(table, WriteTo(topic.url(value="payload", key="k")))
    assert [message.value() for message in topic.messages()] == [b"\xff\x00", b"", None]
    assert [message.key() for message in topic.messages()] == [b"\x01", b"\x02", b"\x03"]


def test_order_is_kept_within_a_key(topic: Topic) -> None:
    """Messages of one key lie in one partition in the order of their rows, over many bulks."""
    table = events(5000).with_columns((pl.col("offset") % 7).alias("k"))
    run(table, WriteTo(topic.url(key="k", partitions=4, rows=1000, value="body")))
    by_key: dict[bytes, list[int]] = {}
    for message in topic.messages():
        by_key.setdefault(message.key(), []).append(int(message.value().split()[1]))
    assert by_key == {str(key).encode(): list(range(key, 5000, 7)) for key in range(7)}


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


def test_dead_letters_are_their_original_bytes(topic: Topic) -> None:
    """`payload` is the value, the rest are headers; letters of one row from two steps have two identities."""
    rejected = reject(pl.DataFrame({"body": ["GET /"], "source": ["a.log"], "offset": [7]}), "combined", "no line")
    table = pl.concat(letters.dead_letters(rejected, step) for step in ("Parse", "Validate"))
    run(table, WriteTo(topic.url()))
    first, second = topic.messages()
    assert first.value() == second.value() == b"GET /"
    headers = dict(first.headers())
    assert headers.pop("id") != dict(second.headers())["id"]
    expected = {"step": "Parse", "rule": "combined", "message": "no line", "source": "a.log", "offset": "7"}
    assert headers == {name: text.encode() for name, text in expected.items()}


def test_dead_letters_as_rows_where_asked(topic: Topic) -> None:
    """value=json makes objects of them, as of any rows."""
    run(pl.DataFrame(schema=letters.SCHEMA).clear(1), WriteTo(topic.url(value="json")))
    assert values(topic) == [dict.fromkeys(letters.SCHEMA)]


def test_rows_that_are_read_from_one_topic_go_to_another(topic: Topic) -> None:
    """Bodies and keys are the same bytes again."""
    first = Topic(topic.server)
    run(events(100), WriteTo(first.url(value="body", key="{source}:{offset}")))
    copied = read_all(Read(first.url()))
    run(copied, WriteTo(topic.url(value="body", key="key")))
    pairs = [{(message.key(), message.value()) for message in each.messages()} for each in (first, topic)]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 100


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


def test_records_without_a_key_for_a_compacted_topic(topic: Topic) -> None:
    """They alone are refused; those that went with them are written."""
    topic.create(cleanup_policy="compact")
    table = events(1000).with_columns(pl.when(pl.col("offset") % 100 > 0).then("body").alias("k"))
    _, dead = collect_with_dead_letters(table, WriteTo(topic.url(key="k")))
    assert sorted(dead["offset"]) == list(range(0, 1000, 100))
    assert sorted(value["offset"] for value in values(topic)) == [n for n in range(1000) if n % 100]


def test_times_that_the_topic_refuses(topic: Topic) -> None:
    """A message from the far future becomes a dead letter, alone."""
    topic.create(message_timestamp_after_max_ms="3600000")
    future = pl.lit(datetime(2096, 1, 1, tzinfo=UTC))
    table = events(200).with_columns(
        pl.when(pl.col("offset") == 9).then(future).otherwise("timestamp").dt.cast_time_unit("us").alias("timestamp")
    )
    _, dead = collect_with_dead_letters(table, WriteTo(topic.url(timestamp="timestamp")))
    assert dead["offset"].to_list() == [9]
    assert len(values(topic)) == 199


def test_a_full_queue_is_waited_for(topic: Topic) -> None:
    """librdkafka's queue holds ten messages; all arrive, in order."""
    run(events(2000), WriteTo(topic.url(value="body", librdkafka__queue__buffering__max__messages=10)))
    assert [message.value().decode() for message in topic.messages()] == events(2000)["body"].to_list()


def test_nothing_to_write(topic: Topic) -> None:
    """The topic is there, and empty."""
    run([events(0)], WriteTo(topic.url()))
    topic.store().close()
    assert topic.partitions() == [0] and topic.count() == 0


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
    store._timeout = 20
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
    store._timeout = 20
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


def test_with_credentials(sasl_kafka: SaslKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password from the environment lets one in; a wrong one is told at once, and never shown."""
    topic = Topic(sasl_kafka)
    login = {"librdkafka.security.protocol": "SASL_PLAINTEXT", "librdkafka.sasl.mechanism": "PLAIN"}
    login |= {"librdkafka.sasl.username": "ann", "librdkafka.sasl.password": "${FABRIC_BEAM_TEST_PASSWORD}"}
    url = topic.url(**login).replace(sasl_kafka.address, sasl_kafka.locked)
    monkeypatch.setenv("FABRIC_BEAM_TEST_PASSWORD", "secret")
    run(events(10), WriteTo(url))
    assert topic.count() == 10
    monkeypatch.setenv("FABRIC_BEAM_TEST_PASSWORD", "hunter2")
    started = time.monotonic()
    sink = WriteTo(url)
    with pytest.raises(OutputError, match="uthentication") as raised:
        sink.sink.prepare()
    assert time.monotonic() - started < 8
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
        store.ensure(events(1).schema)


def test_types_that_json_lacks_are_said_before_the_run(topic: Topic) -> None:
    """Bytes within a list: the column is named."""
    with pytest.raises(OutputError, match="'blobs'"):
        topic.store().ensure(pl.Schema({"blobs": pl.List(pl.Binary())}))


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
