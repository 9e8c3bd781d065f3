"""`cassandra:` without a server: URLs, options, tables, and the batches that rows become."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, OutputError, SchemaError, UsageError
from fabric_beam.io.cassandra.encode import NULL, UNSET, batches
from fabric_beam.io.cassandra.sink import CassandraStore
from fabric_beam.io.cassandra.tables import Key
from fabric_beam.schemes import SINKS

pytest.importorskip("cassandra")

EVENTS = pl.Schema(
    {"timestamp": pl.Datetime("us", "UTC"), "http.route": pl.String(), "source": pl.String(), "offset": pl.Int64()}
)
WINDOWS = pl.Schema({"window_start": pl.Datetime("us", "UTC"), "host.name": pl.String(), "count": pl.UInt32()})


def store(query: str = "") -> CassandraStore:
    return CassandraStore(Endpoint.parse(f"cassandra://localhost/logs/events?{query}", SINKS))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("cassandra:", "host:9042/keyspace/table"),
        ("cassandra://localhost", "host:9042/keyspace/table"),
        ("cassandra://localhost/logs", "host:9042/keyspace/table"),
        ("cassandra://localhost/logs/a-b", "letters, digits"),
        ("cassandra://localhost/logs/a/b", "host:9042/keyspace/table"),
        ("cassandra://localhost:port/logs/events", "host:9042/keyspace/table"),
        ("cassandra://a:9042,b:99999/logs/events", "host:9042/keyspace/table"),
        ("cassandra://localhost/logs/events?partiton=a", "Did you mean 'partition'"),
        ("cassandra://localhost/logs/events?clustering=a", "needs partition="),
        ("cassandra://localhost/logs/events?bucket=hour", "a width of time"),
        ("cassandra://localhost/logs/events?ttl=0", "a number of seconds"),
        ("cassandra://localhost/logs/events?replication=dc1", "a number of replicas"),
        ("cassandra://localhost/logs/events?consistency=QUORUMM", "Did you mean 'QUORUM'"),
        ("cassandra://localhost/logs/events?nulls=no", "write or skip"),
        ("cassandra://localhost/logs/events?tls=false&ssl_ca_certs=ca.pem", "is for TLS"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, said: str) -> None:
    """It is said when the pipeline is built."""
    with pytest.raises(UsageError, match=said):
        WriteTo(url)


def test_hosts() -> None:
    """Several, with and without ports, of version 6 too, and with a user whose name has other characters."""
    target = CassandraStore(
        Endpoint.parse("cassandra://a%40b:c%3A@one,two:9043,[::1]:9044,10.0.0.1/logs/events", SINKS)
    )._target
    assert target.nodes == [("one", 9042), ("two", 9043), ("::1", 9044), ("10.0.0.1", 9042)]
    account = target._account()
    assert (account.username, account.password) == ("a@b", "c:")


def test_a_wrong_url_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither written out nor from the environment."""
    monkeypatch.setenv("CASSANDRA_PASSWORD", "hunter2")
    for password in ("hunter2", "${CASSANDRA_PASSWORD}"):
        with pytest.raises(UsageError) as raised:
            WriteTo(f"cassandra://ann:{password}@localhost,other/events")
        assert "hunter2" not in str(raised.value)


def test_the_client_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message has the line that installs it."""
    monkeypatch.setitem(sys.modules, "cassandra", None)
    with pytest.raises(MissingExtraError, match=r"fabric-beam\[cassandra\]"):
        WriteTo("cassandra://localhost/logs/events")


@pytest.mark.parametrize(
    ("query", "schema", "key"),
    [
        ("", EVENTS, Key(["source", "time_bucket"], ["timestamp", "offset"], "1h")),
        ("bucket=10m", EVENTS, Key(["source", "time_bucket"], ["timestamp", "offset"], "10m")),
        ("", WINDOWS, Key(["series", "time_bucket"], ["window_start", "row_id"], "1d")),
        ("", pl.Schema({"payload": pl.String()}), Key(["row_id"], [])),
        ("partition=host.name", WINDOWS, Key(["host.name"], [])),
        (
            "partition=host.name&bucket=1d&clustering=window_start",
            WINDOWS,
            Key(["host.name", "time_bucket"], ["window_start"], "1d"),
        ),
    ],
)
def test_primary_keys(query: str, schema: pl.Schema, key: Key) -> None:
    """Events, aggregates and other rows have theirs; options say another."""
    assert store(query)._layout.key(schema) == key


@pytest.mark.parametrize(
    ("query", "said"),
    [("partition=host.nam", "Did you mean 'host.name'"), ("partition=host.name&bucket=1d", "no time")],
)
def test_columns_that_do_not_fit(query: str, said: str) -> None:
    """They are said before the run."""
    with pytest.raises(SchemaError, match=said):
        store(query)._layout.key(pl.Schema({"host.name": pl.String(), "count": pl.Int64()}))


def test_the_statement_that_creates_a_table() -> None:
    """Dotted names stay; lists are frozen, so that they are replaced whole; structs are JSON."""
    layout = store("ttl=60")._layout
    schema = pl.Schema({**EVENTS, "tags": pl.List(pl.String()), 'a"b': pl.Struct({"x": pl.Int8()}), "n": pl.UInt64()})
    assert layout.statement(layout.key(schema), schema) == (
        'CREATE TABLE IF NOT EXISTS "logs"."events" ("time_bucket" timestamp, "timestamp" timestamp, '
        '"http.route" text, "source" text, "offset" bigint, "tags" frozen<list<text>>, "a""b" text, "n" varint, '
        'PRIMARY KEY (("source", "time_bucket"), "timestamp", "offset")) '
        "WITH comment = 'fabric-beam time_bucket=1h' AND default_time_to_live = 60"
    )
    assert layout.insert(["a.b", "c"]) == 'INSERT INTO "logs"."events" ("a.b", "c") VALUES (?, ?) USING TTL 60'


def test_a_column_without_a_type() -> None:
    """It is named before the run."""
    schema = pl.Schema({"thing": pl.Object()})
    with pytest.raises(OutputError, match="'thing'"):
        store()._layout.statement(Key(["row_id"], []), schema)


def test_columns_that_are_made() -> None:
    """Buckets begin at whole hours or days, before 1970 too; a series is named by its texts; an identity by all."""
    times = [datetime(2026, 1, 1, 12, 59, 59, tzinfo=UTC), datetime(1969, 12, 31, 23, 30, tzinfo=UTC)]
    table = pl.DataFrame({"window_start": times, "host.name": ["a", None], "method": ["GET", "PUT"], "count": [1, 2]})
    made = Key(["series", "time_bucket"], ["window_start", "row_id"], "1h").add_to(table)
    assert made["time_bucket"].to_list() == [times[0].replace(minute=0, second=0), times[1].replace(minute=0)]
    assert made["series"].to_list() == ["a/GET", "/PUT"]
    assert made["row_id"].n_unique() == 2


def test_a_store_goes_to_workers() -> None:
    """It is pickled, with its layout."""
    sent = pickle.loads(pickle.dumps(store("partition=a&ttl=9&nulls=skip")))
    assert sent._layout.ttl == 9


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "é" * 9000]), st.integers(-3, 3), st.none() | st.text(), st.booleans()),
        max_size=30,
    ),
    st.sampled_from([NULL, UNSET]),
)
def test_batches_are_those_of_the_protocol(rows: list[tuple[str, int, str | None, bool]], missing: int) -> None:
    """Every row once, in order within its partition, as a plain loop would pack them; a batch is of one partition."""
    table = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Int16, "c": pl.String, "d": pl.Boolean}, orient="row")
    made = batches(b"\1id", table.get_columns(), [0, 1], missing)
    assert sorted(made.rows.tolist()) == list(range(len(rows)))
    for n in range(len(made)):
        first, last = int(made.firsts[n]), int(made.firsts[n + 1])
        numbers = made.rows[first:last].tolist()
        assert len({rows[number][:2] for number in numbers}) == 1
        assert numbers == sorted(numbers)
        a, b = rows[numbers[0]][0].encode(), rows[numbers[0]][1].to_bytes(2, "big", signed=True)
        assert made.routing_key(first) == len(a).to_bytes(2, "big") + a + b"\0\0\2" + b + b"\0"
        assert bytes(made.statements(first, last)) == b"".join(_packed(rows[number], missing) for number in numbers)


def _packed(row: tuple[str, int, str | None, bool], missing: int) -> bytes:
    def value(data: bytes | None) -> bytes:
        return missing.to_bytes(4, "big", signed=True) if data is None else len(data).to_bytes(4, "big") + data

    a, b, c, d = row
    number = b.to_bytes(2, "big", signed=True)
    values = [a.encode(), number, None if c is None else c.encode(), bytes([d])]
    return b"\1\0\3\1id\0\4" + b"".join(map(value, values))
