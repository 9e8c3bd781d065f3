"""`cassandra:` read from a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

import polars as pl
import pytest

from fabric_beam import Read
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError, UsageError
from fabric_beam.io.cassandra.source import CassandraReader
from fabric_beam.schemes import SOURCES
from fabric_beam.testing import read_all
from fabric_beam.testing.servers.cassandra import CassandraServer
from tests.integration.store_read_suite import StoreReadSuite
from tests.integration.store_suite import events
from tests.integration.test_cassandra import execute, session
from tests.integration.test_cassandra_layouts import TYPES, written

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def client(cassandra: CassandraServer) -> Iterator[Any]:
    """A session of the official client in a keyspace of this module's."""
    with session(cassandra, "source") as client:
        yield client


@pytest.fixture
def place(client: Any, cassandra: CassandraServer, request: pytest.FixtureRequest) -> str:
    """The URL of a table of the test's own."""
    table = request.node.originalname[5:][:48]
    client.execute(f"DROP TABLE IF EXISTS {table}")
    return cassandra.url(f"source/{table}")


def read(url: str) -> pl.DataFrame:
    """What a pipeline reads."""
    return read_all(Read(url))


def reader(url: str) -> CassandraReader:
    """A reader that is connected."""
    made = CassandraReader(Endpoint.parse(url, SOURCES))
    made.connect(30)
    return made


class TestReadCassandra(StoreReadSuite):
    """The shared suite, with the table that events get."""

    client: Any

    @pytest.fixture(scope="class")
    def server(self, cassandra: CassandraServer, client: Any) -> CassandraServer:
        """The session's server."""
        type(self).client = client
        return cassandra

    def url(self, **options: Any) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return self.server.url(f"source/events?{query}")

    def clear(self) -> None:
        execute(self.client, "DROP TABLE IF EXISTS source.events")

    def missing(self) -> tuple[str, str]:
        written(self.url(), events(1))
        return self.url().replace("/events", "/evnts"), "Did you mean 'events'"

    def wrong_credentials(self) -> str:
        return f"cassandra://cassandra:hunter2@{self.server.address}/source/events"

    def elsewhere(self, port: int) -> str:
        return f"cassandra://127.0.0.1:{port}/source/events"


def test_types(place: str) -> None:
    """All that the sink writes come back; what CQL has no type for as text."""
    assert written(f"{place}?partition=n", TYPES) == []
    found = read(place).drop("source", "offset")
    wanted = TYPES.with_columns(
        pl.col("utc").dt.truncate("1ms"),
        pl.col("naive").dt.truncate("1ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        pl.col("byte").cast(pl.Int16),
        pl.col("big", "decimal", "category", "nothing").cast(pl.String),
        struct=pl.lit('{"a.b":1,"c":null}'),
    )
    assert found.select(wanted.columns).to_dict(as_series=False) == wanted.to_dict(as_series=False)
    assert found.select(wanted.columns).schema == wanted.schema


@pytest.mark.parametrize(
    ("cql", "literal", "dtype", "value"),
    [
        ("inet", "'::1'", pl.String(), "::1"),
        ("uuid", "12345678-1234-5678-1234-567812345678", pl.String(), "12345678-1234-5678-1234-567812345678"),
        ("varint", "-123456789012345678901234567890", pl.String(), "-123456789012345678901234567890"),
        ("decimal", "1.50", pl.String(), "1.50"),
        ("ascii", "'a'", pl.String(), "a"),
        ("text", "'é😀'", pl.String(), "é😀"),
        ("text", "''", pl.String(), ""),
        ("tinyint", "-128", pl.Int8(), -128),
        ("bigint", "-9223372036854775808", pl.Int64(), -(2**63)),
        ("float", "-0.5", pl.Float32(), -0.5),
        ("double", "1e300", pl.Float64(), 1e300),
        ("boolean", "true", pl.Boolean(), True),
        ("blob", "0x00ff", pl.Binary(), b"\0\xff"),
        ("timestamp", "-1", pl.Datetime("us", "UTC"), datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        ("date", "'1969-12-31'", pl.Date(), date(1969, 12, 31)),
        ("time", "'23:59:59.999999999'", pl.Time(), time_of_day(23, 59, 59, 999_999)),
        ("duration", "2d3us", pl.Duration("us"), timedelta(days=2, microseconds=3)),
        ("list<int>", "[1, 2]", pl.List(pl.Int32()), [1, 2]),
        ("set<inet>", "{'::1'}", pl.List(pl.String()), ["::1"]),
        (
            "map<text, date>",
            "{'a': '2026-01-01'}",
            pl.List(pl.Struct({"key": pl.String(), "value": pl.Date()})),
            [{"key": "a", "value": date(2026, 1, 1)}],
        ),
        (
            "tuple<int, text>",
            "(1, null)",
            pl.Struct({"field_0": pl.Int32(), "field_1": pl.String()}),
            {"field_0": 1, "field_1": None},
        ),
        (
            "frozen<point>",
            "{y: 2.5}",
            pl.Struct({"x": pl.Int32(), "y": pl.Float64()}),
            {"x": None, "y": 2.5},
        ),
    ],
)
def test_types_of_cql(client: Any, place: str, cql: str, literal: str, dtype: Any, value: Any) -> None:
    """Each has a column type; null is null."""
    client.execute("CREATE TYPE IF NOT EXISTS point (x int, y double)")
    client.execute(f'CREATE TABLE types_of_cql (k int PRIMARY KEY, "v.w" {cql})')
    client.execute(f'INSERT INTO types_of_cql (k, "v.w") VALUES (1, {literal})')
    client.execute('INSERT INTO types_of_cql (k, "v.w") VALUES (2, null)')
    found = read(place).sort("k")
    assert found.schema["v.w"] == dtype
    assert found["v.w"].to_list() == [value, None]


def test_counters(client: Any, place: str) -> None:
    """They are numbers."""
    client.execute("CREATE TABLE counters (k text, l int, n counter, PRIMARY KEY (k, l))")
    client.execute("UPDATE counters SET n = n + 5 WHERE k = 'a/%' AND l = 3")
    found = read(place)
    assert found.row(0, named=True) == {
        "k": "a/%",
        "l": 3,
        "n": 5,
        "source": place.replace("cassandra:cassandra@", "") + "/a%2F%25/3",
        "offset": 0,
    }


def test_some_columns(place: str) -> None:
    """fields= names them; a wrong name is said."""
    written(place, events(10))
    assert set(read(f"{place}?fields=body,timestamp").columns) == {"body", "timestamp", "source", "offset"}
    with pytest.raises(UsageError, match="Did you mean 'body'"):
        reader(f"{place}?fields=boddy").schema(pl.Schema())


def test_an_empty_table(place: str) -> None:
    """No rows, and its columns."""
    written(place, events(0))
    made = reader(f"{place}?ranges=3")
    assert set(made.schema(pl.Schema())) == set(events(0).columns)
    assert [page.height for split in made.splits() for page in made.read(split)] == [0, 0, 0]
    made.close()
    assert read(place).height == 0


def test_a_table_that_is_missing(client: Any, place: str, cassandra: CassandraServer) -> None:
    """The nearest name is said, of keyspaces too."""
    client.execute("CREATE TABLE IF NOT EXISTS there_already (k int PRIMARY KEY)")
    with pytest.raises(InputError, match="Did you mean 'there_already'"):
        read(place.rpartition("/")[0] + "/there_alredy")
    with pytest.raises(InputError, match="no keyspace 'sorce'"):
        read(cassandra.url("sorce/t"))
    with pytest.raises(InputError) as raised:
        read(f"cassandra://cassandra:hunter2@{cassandra.address}/source/t")
    assert "hunter2" not in str(raised.value)


def test_pages_go_on_where_they_were(place: str) -> None:
    """What is left of a split after any page, asked of another connection, is the rest, once."""
    written(place, events(5000))
    made = reader(f"{place}?rows=700")
    made.schema(pl.Schema())
    found = []
    for split in made.splits():
        rest: str | None = split
        while rest:
            page = next(made.read(rest), None)
            if page is None or not page.height:
                break
            found.append(page.table)
            rest = page.rest
            made.close()
            made.connect(30)
    made.close()
    assert pl.concat(found)["offset"].sort().to_list() == list(range(5000))
