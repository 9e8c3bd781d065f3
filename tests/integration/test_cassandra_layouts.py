"""`cassandra:` on a real server: tables, types, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError
from fabric_beam.kernel import MESSAGE
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.cassandra import CassandraServer
from tests.integration.store_suite import events, write

pytest.importorskip("cassandra")

from cassandra import InvalidRequest, Unauthorized
from cassandra.util import Duration

from fabric_beam.io.cassandra.sink import CassandraStore
from tests.integration.test_cassandra import session

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def client(cassandra: CassandraServer) -> Iterator[Any]:
    """A session of the official client in a keyspace of this module's."""
    with session(cassandra, "layouts") as client:
        yield client


@pytest.fixture
def place(client: Any, cassandra: CassandraServer, request: pytest.FixtureRequest) -> str:
    """The URL of a table of the test's own, whose name is `table`."""
    table = request.node.originalname[5:].partition("[")[0][:48]
    client.execute(f"DROP TABLE IF EXISTS {table}")
    return cassandra.url(f"layouts/{table}")


def store(url: str) -> CassandraStore:
    """A store that is connected."""
    made = CassandraStore(Endpoint.parse(url, SINKS))
    made.connect(30)
    return made


def written(url: str, *tables: pl.DataFrame) -> list[str]:
    """Write tables one after the other; returns why rows were refused."""
    made = store(url)
    try:
        made.ensure(tables[0].schema)
        refused = [made.write(table) for table in tables]
    finally:
        made.close()
    return [message for each in refused if each is not None for message in each[MESSAGE]]


def rows(client: Any, url: str, columns: str = "*") -> list[dict[str, Any]]:
    """What is in a table."""
    table = url.partition("?")[0].rpartition("/")[2]
    found = client.execute(f"SELECT {columns} FROM {table}")
    return [dict(zip(found.column_names, row, strict=True)) for row in found]


TYPES = pl.DataFrame(
    {
        "n": pl.Series([1], dtype=pl.Int64),
        "utc": pl.Series([START + timedelta(microseconds=1999)], dtype=pl.Datetime("us", "UTC")),
        "naive": pl.Series([datetime(1969, 12, 31, 23, 59, 59, 999_999)], dtype=pl.Datetime("ns")),
        "date": [date(1, 1, 1)],
        "time": [time_of_day(1, 2, 3, 4)],
        "duration": [timedelta(days=-1, microseconds=5)],
        "tiny": pl.Series([-128], dtype=pl.Int8),
        "byte": pl.Series([255], dtype=pl.UInt8),
        "big": pl.Series([2**64 - 1], dtype=pl.UInt64),
        "float": pl.Series([0.5], dtype=pl.Float32),
        "nan": [float("-inf")],
        "bool": [False],
        "decimal": [Decimal("-1.50")],
        "é.text": ["π 😀 \0"],
        "empty": [""],
        "bytes": [b"\xff\0"],
        "list": [["a", ""]],
        "lists": [[[1, 2], []]],
        "struct": [{"a.b": 1, "c": None}],
        "category": pl.Series(["x"], dtype=pl.Categorical),
        "absent": pl.Series([None], dtype=pl.Int64),
        "nothing": [None],
    }
)


def test_types_of_a_table_that_is_made(client: Any, place: str) -> None:
    """Each type of Polars has one in CQL; times are cut to milliseconds."""
    assert written(f"{place}?partition=n", TYPES) == []
    [row] = rows(client, place)
    assert row == {
        "n": 1,
        "utc": datetime(2026, 1, 1, 12, 0, 0, 1000),
        "naive": datetime(1969, 12, 31, 23, 59, 59, 999_000),
        "date": row["date"],
        "time": row["time"],
        "duration": Duration(0, 0, -86_399_999_995_000),
        "tiny": -128,
        "byte": 255,
        "big": 2**64 - 1,
        "float": 0.5,
        "nan": float("-inf"),
        "bool": False,
        "decimal": Decimal("-1.50"),
        "é.text": "π 😀 \0",
        "empty": "",
        "bytes": b"\xff\0",
        "list": ["a", ""],
        "lists": [[1, 2], []],
        "struct": '{"a.b":1,"c":null}',
        "category": "x",
        "absent": None,
        "nothing": None,
    }
    assert (str(row["date"]), str(row["time"])) == ("0001-01-01", "01:02:03.000004000")


ONE, TIMED = UUID("12345678-1234-5678-1234-567812345678"), UUID("c4105000-e6ae-11f0-8de9-0242ac120002")


@pytest.mark.parametrize(
    ("cql", "values", "dtype", "expected"),
    [
        ("inet", ["10.0.0.1", "::1", "10.0.0", "10.0.0.1"], pl.String, ["10.0.0.1", "::1", None, "10.0.0.1"]),
        ("uuid", [str(ONE), str(ONE)[:-1], None], pl.String, [ONE, None, None]),
        ("uuid", [ONE.bytes, b"\0"], pl.Binary, [ONE, None]),
        ("timeuuid", [str(TIMED), str(ONE)], pl.String, [TIMED, None]),
        ("varint", ["-123456789012345678901234567890", "1.5"], pl.String, [-123456789012345678901234567890, None]),
        ("decimal", ["1.50", "one"], pl.String, [Decimal("1.50"), None]),
        ("decimal", [1.1], pl.Float64, [Decimal("1.1")]),
        ("tinyint", [127, 128, -129], pl.Int64, [127, None, None]),
        ("int", ["7", "seven"], pl.Categorical, [7, None]),
        ("double", ["0.5", "half"], pl.String, [0.5, None]),
        ("bigint", [START + timedelta(microseconds=7)], pl.Datetime("ms", "UTC"), [1_767_268_800_000_000]),
        ("bigint", [START + timedelta(microseconds=7)], pl.Datetime("us", "UTC"), [1_767_268_800_000_007]),
        ("ascii", ["a", "é"], pl.String, ["a", None]),
        ("text", [1, None], pl.Int64, ["1", None]),
        ("text", [START], pl.Datetime("us", "UTC"), ["2026-01-01T12:00:00.000000Z"]),
        ("timestamp", [date(2026, 1, 1)], pl.Date, [datetime(2026, 1, 1)]),
        ("set<inet>", [["::1", "::1"], ["x"], []], pl.List(pl.String), [{"::1"}, None, None]),
        ("list<smallint>", [[1, 2], [70_000]], pl.List(pl.Int64), [[1, 2], None]),
        ("frozen<list<timestamp>>", [[START]], pl.List(pl.Datetime("us", "UTC")), [[START.replace(tzinfo=None)]]),
        ("frozen<list<text>>", [[{"x": 1}]], pl.List(pl.Struct({"x": pl.Int8})), [['{"x":1}']]),
        ("map<text, int>", [{"a": 1, "b": None}], pl.Struct({"a": pl.Int8, "b": pl.Int8}), [{"a": 1}]),
        (
            "map<uuid, text>",
            [[{"key": str(ONE), "value": "v"}], [{"key": "k", "value": "v"}]],
            pl.List(pl.Struct({"key": pl.String, "value": pl.String})),
            [{ONE: "v"}, None],
        ),
        ("tuple<int, inet>", [{"x": 1, "y": "::1"}], pl.Struct({"x": pl.Int8, "y": pl.String}), [(1, "::1")]),
        ("frozen<point>", [{"y": 2.5}], pl.Struct({"y": pl.Float64}), [(None, 2.5)]),
    ],
)
def test_types_of_a_table_that_is_there(
    client: Any, place: str, cql: str, values: list[Any], dtype: Any, expected: list[Any]
) -> None:
    """Values become what their column holds; a row whose value does not is refused, alone and in words."""
    client.execute("CREATE TYPE IF NOT EXISTS point (x int, y double)")
    client.execute(f'CREATE TABLE types_of_a_table_that_is_there (n bigint PRIMARY KEY, "v.w" {cql})')
    table = pl.DataFrame({"n": range(len(values)), "v.w": pl.Series(values, dtype=dtype)})
    refused = written(place, table)
    found = {row["n"]: row["v.w"] for row in rows(client, place)}
    bad = [n for n, (value, wanted) in enumerate(zip(values, expected, strict=True)) if wanted is None and value]
    assert len(refused) == len(bad)
    assert all("column 'v.w' is" in message and "cannot hold" in message for message in refused)
    assert sorted(found) == [n for n in range(len(values)) if n not in bad]
    for n, value in found.items():
        assert (list(value) if cql.startswith("set") and value else value) == (
            list(expected[n]) if cql.startswith("set") and expected[n] else expected[n]
        )


def test_aggregates(client: Any, place: str) -> None:
    """A series' windows lie together by day; a null is a key too; a replay adds nothing."""
    table = pl.DataFrame(
        {
            "window_start": [START, START + timedelta(minutes=1), START + timedelta(days=1), START],
            "host.name": ["a", "a", "a", None],
            "status": [200, 200, 200, 500],
            "mean": [0.1, 0.2, 0.3, 0.4],
        }
    ).cast({"window_start": pl.Datetime("us", "UTC")})
    assert written(place, table, table.with_columns(pl.col("mean") + 1e-17)) == []
    found = rows(client, f"{place}?", 'series, time_bucket, window_start, "host.name", mean')
    assert len(found) == 4
    assert {(row["series"], row["time_bucket"].day) for row in found} == {("a", 1), ("a", 2), ("", 1)}


@pytest.mark.parametrize(("query", "left"), [("", None), ("&nulls=skip", 2)])
def test_state(client: Any, place: str, query: str, left: Any) -> None:
    """The last row of a key stays, also of one write; its nulls replace what was there, unless they are skipped."""
    table = pl.DataFrame({"host.name": ["a", "b", "a"], "x": [9, 1, 3], "y": [2, 2, 2]})
    later = pl.DataFrame({"host.name": ["a"], "x": [4], "y": pl.Series([None], dtype=pl.Int64)})
    assert written(f"{place}?partition=host.name{query}", table, later) == []
    assert sorted(tuple(row.values()) for row in rows(client, place)) == [("a", 4, left), ("b", 1, 2)]


def test_rows_go_away(client: Any, place: str) -> None:
    """After `ttl` seconds, by the table's own rule and in a table that has none."""
    written(f"{place}?ttl=500", events(1))
    client.execute("ALTER TABLE rows_go_away WITH default_time_to_live = 0")
    written(f"{place}?ttl=400", events(2).tail(1))
    second, first = sorted(row["ttl(body)"] for row in rows(client, place, "ttl(body)"))
    assert 350 < second <= 400 and 450 < first <= 500


def test_a_keyspace_is_made_if_that_is_said(client: Any, cassandra: CassandraServer) -> None:
    """Else the message says how."""
    client.execute("DROP KEYSPACE IF EXISTS other")
    url = cassandra.url("other/t")
    with pytest.raises(OutputError, match=r"no keyspace 'other'.*replication=3"):
        written(url, events(1))
    assert written(f"{url}?replication=1", events(1)) == []
    client.execute("DROP KEYSPACE other")


def test_columns_that_are_missing(client: Any, place: str) -> None:
    """The message has the statement that adds them; alter=true does it."""
    written(place, events(1))
    more = events(2).with_columns(size=pl.lit(1.5))
    with pytest.raises(OutputError, match=r'alter=true, or ALTER TABLE .* ADD \("size" double\);'):
        written(place, more)
    assert written(f"{place}?alter=true", more) == []
    assert [row["size"] for row in rows(client, place)] == [1.5, 1.5]
    # Rows that lack some are no error.
    assert written(place, events(3)) == []


@pytest.mark.parametrize(
    ("query", "table", "said"),
    [
        ("partition=source", events(1), "its primary key is"),
        ("bucket=1d", events(1), "buckets are of 1h"),
        ("", events(1).with_columns(body=pl.lit(1.5), offset=pl.lit("x")), "'offset' is bigint"),
        ("", events(1).drop("offset"), "primary key has 'offset'"),
    ],
)
def test_a_table_that_does_not_fit(client: Any, place: str, query: str, table: pl.DataFrame, said: str) -> None:
    """It is said before the run."""
    written(place, events(1))
    if "bigint" in said:
        table = table.with_columns(offset=pl.lit([1]))
    with pytest.raises(Exception, match=said):
        written(f"{place}?{query}", table)


def test_counters_are_refused(client: Any, place: str) -> None:
    """An increment that is written again counts twice."""
    client.execute("CREATE TABLE counters_are_refused (k text PRIMARY KEY, n counter)")
    with pytest.raises((InvalidRequest, OutputError), match="counter"):
        written(place, pl.DataFrame({"k": ["a"], "n": [1]}))


def test_nulls_in_the_key_are_refused(client: Any, place: str) -> None:
    """The row alone; the others are written."""
    table = events(4).with_columns(
        timestamp=pl.when(pl.col("offset") != 2).then("timestamp"), source=pl.when(pl.col("offset") != 1).then("source")
    )
    assert written(place, table) == ["source is null", "timestamp is null"]
    assert sorted(row["offset"] for row in rows(client, place)) == [0, 3]


def test_values_that_are_too_large(client: Any, place: str) -> None:
    """What the server or the protocol does not take is refused; megabytes are taken; others of the batch too."""
    big = {1: 3 << 20, 2: 5 << 20, 3: 17 << 20}
    table = events(5).with_columns(body=pl.Series([("é" * (big[n] // 2)) if n in big else "small" for n in range(5)]))
    refused = written(place, table)
    assert len(refused) == 2
    assert any("16 MiB" in message for message in refused)
    assert sorted(row["offset"] for row in rows(client, place)) == [0, 1, 4]


def test_empty_tables(client: Any, place: str) -> None:
    """They make the table, and nothing else."""
    assert written(place, events(0)) == []
    assert rows(client, place) == []


def test_a_table_that_is_gone(client: Any, place: str) -> None:
    """It ends the run: no row is refused for it."""
    made = store(place)
    made.ensure(events(1).schema)
    assert made.write(events(10)) is None
    client.execute("DROP TABLE a_table_that_is_gone")
    with pytest.raises(InvalidRequest) as raised:
        made.write(events(10))
    assert not made.transient(raised.value)
    made.close()


def test_a_user_who_may_not_write(client: Any, cassandra: CassandraServer, place: str, tmp_path: Any) -> None:
    """The run ends with the server's words and without the password."""
    written(place, events(1))
    client.execute("CREATE ROLE IF NOT EXISTS reader WITH PASSWORD = '+s3cret' AND LOGIN = true")
    url = place.replace("cassandra:cassandra@", "reader:+s3cret@")
    made = store(url)
    with pytest.raises(Unauthorized) as denied:
        made.write(events(1))
    made.close()
    assert not made.transient(denied.value)
    with pytest.raises(Exception, match="MODIFY") as raised:
        write(events(10), f"jsonl:{tmp_path}", url)
    assert "s3cret" not in str(raised.value)


def test_nothing_is_left_of_a_closed_store(place: str) -> None:
    """Neither threads nor connections."""
    before = set(threading.enumerate())
    written(place, events(10))
    left = [thread.name for thread in set(threading.enumerate()) - before if not thread.daemon]
    assert left == []
