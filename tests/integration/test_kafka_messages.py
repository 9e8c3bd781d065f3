"""What the messages are that `kafka:` writes to a real broker."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from fabric_beam import WriteTo
from fabric_beam import dead_letters as letters
from fabric_beam.endpoints import Read
from fabric_beam.errors import OutputError
from fabric_beam.kernel import reject
from fabric_beam.testing import run
from fabric_beam.testing.batches import collect_with_dead_letters, read_all
from fabric_beam.testing.servers.kafka import KafkaServer
from tests.integration.kafka_topic import Topic, values
from tests.integration.store_suite import events

pytest.importorskip("confluent_kafka")


@pytest.fixture
def topic(kafka: KafkaServer) -> Topic:
    """A topic that is not there yet."""
    return Topic(kafka)


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


def test_nothing_to_write(topic: Topic) -> None:
    """The topic is there, and empty."""
    run([events(0)], WriteTo(topic.url()))
    topic.store().close()
    assert topic.partitions() == [0] and topic.count() == 0


def test_types_that_json_lacks_are_said_before_the_run(topic: Topic) -> None:
    """Bytes within a list: the column is named."""
    with pytest.raises(OutputError, match="'blobs'"):
        topic.store().check(pl.Schema({"blobs": pl.List(pl.Binary())}))
