"""`Enrich("cassandra://…")` on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from fabric_beam.errors import FabricBeamError
from fabric_beam.testing import collect_with_dead_letters
from fabric_beam.testing.servers.cassandra import CassandraServer
from tests.integration.lookup_suite import LookupSuite
from tests.integration.test_cassandra import execute, session
from transforms import Enrich

pytest.importorskip("cassandra")

from cassandra.concurrent import execute_concurrent_with_args


@pytest.fixture(scope="module")
def client(cassandra: CassandraServer) -> Iterator[Any]:
    """A session of the official client in a keyspace of this module's."""
    with session(cassandra, "lookup") as client:
        client.execute(
            'CREATE TABLE hosts ("host.name" text, port int, tier text, "rack.number" bigint, '
            'PRIMARY KEY ("host.name", port))'
        )
        client.execute("CREATE TABLE ids (id uuid PRIMARY KEY, tags set<text>, size text)")
        yield client


class TestCassandraEnrich(LookupSuite):
    """The suite of every lookup, by a whole primary key."""

    client: Any

    @pytest.fixture(scope="class")
    def server(self, cassandra: CassandraServer, client: Any) -> CassandraServer:
        """The session's server."""
        type(self).client = client
        return cassandra

    def url(self, **options: Any) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return self.server.url(f"lookup/hosts?{query}")

    def fill(self, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
        there = list(execute(self.client, 'SELECT DISTINCT "host.name" FROM lookup.hosts LIMIT 100'))
        if len(there) < 100:
            # A table is emptied within a second or so: more than a test may wait for.
            for (name,) in there:
                self.client.execute('DELETE FROM lookup.hosts WHERE "host.name" = %s', (name,))
        else:
            execute(self.client, "TRUNCATE lookup.hosts")
        insert = self.client.prepare(
            'INSERT INTO lookup.hosts ("host.name", port, tier, "rack.number") VALUES (?, ?, ?, ?)'
        )
        values = [(*key, row.get("tier"), row.get("rack.number")) for key, row in rows.items()]
        execute_concurrent_with_args(self.client, insert, values)

    def wrong_credentials(self) -> str:
        return f"cassandra://cassandra:hunter2@{self.server.address}/lookup/hosts"


@pytest.fixture
def hosts(client: Any, cassandra: CassandraServer) -> str:
    """The URL of a table with a row."""
    client.execute("TRUNCATE hosts")
    client.execute("""INSERT INTO hosts ("host.name", port, tier, "rack.number") VALUES ('a', 2, 'b', 3)""")
    client.execute("""INSERT INTO hosts ("host.name", port, tier, "rack.number") VALUES ('a', 1, 'x', 4)""")
    return cassandra.url("lookup/hosts")


def test_columns_are_the_tables(hosts: str) -> None:
    """With their types; of several rows of a partition the first is taken."""
    kept, _ = collect_with_dead_letters(pl.DataFrame({"host.name": ["a", "b"]}), Enrich(hosts, "host.name"))
    assert kept.select("port", "tier", "rack.number").rows() == [(1, "x", 4), (None, None, None)]
    assert kept.schema["port"] == pl.Int32


def test_keys_and_values_of_other_types(client: Any, hosts: str) -> None:
    """A text that is no UUID is not there; a value that is not of the type wanted rejects its row."""
    client.execute("INSERT INTO ids (id, tags, size) VALUES (12345678-1234-5678-1234-567812345678, {'a'}, 'big')")
    events = pl.DataFrame({"id": ["12345678-1234-5678-1234-567812345678", "x"]})
    url = hosts.replace("hosts", "ids")
    kept, _ = collect_with_dead_letters(events, Enrich(url, "id"))
    assert kept.select("tags", "size").rows() == [(["a"], "big"), (None, None)]
    kept, letters = collect_with_dead_letters(events, Enrich(url, "id", columns={"size": pl.Int64}))
    assert kept.height == letters.height == 1
    assert "size is not Int64: 'big'" in letters["message"][0]


@pytest.mark.parametrize(
    ("table", "keys", "said"),
    [
        ("hosts", ["port"], "all of its partition key"),
        ("hots", ["host.name"], "Did you mean 'lookup.hosts'"),
        ("ids", ["id"], "which Int64 cannot be"),
    ],
)
def test_what_cannot_be_looked_up(hosts: str, table: str, keys: list[str], said: str) -> None:
    """It is said while the pipeline is built."""
    events = pl.DataFrame({"port": [1], "host.name": ["a"], "id": [1]})
    with pytest.raises(FabricBeamError, match=said):
        collect_with_dead_letters(events, Enrich(hosts.replace("hosts", table), keys))
