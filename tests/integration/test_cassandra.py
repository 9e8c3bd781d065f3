"""`cassandra:` on a real server: what every sink of a store must do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
import pytest

from fabric_beam.testing.servers.cassandra import CassandraServer
from tests.integration.store_suite import StoreSuite, events

pytest.importorskip("cassandra")

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.policies import ConstantReconnectionPolicy

KEYSPACE = "suite"
REPLICATION = "{'class': 'SimpleStrategy', 'replication_factor': 1}"


@contextmanager
def session(server: CassandraServer, keyspace: str) -> Iterator[Any]:
    """The official client's, for a while, with an empty keyspace."""
    with Cluster(
        ["127.0.0.1"],
        port=server.port,
        auth_provider=PlainTextAuthProvider(server.user, server.user),
        reconnection_policy=ConstantReconnectionPolicy(0.5, max_attempts=None),
        protocol_version=4,
        connect_timeout=60,
        control_connection_timeout=60,
    ) as cluster:
        client = cluster.connect()
        client.default_timeout = 60
        client.execute(f"CREATE KEYSPACE {keyspace} WITH replication = {REPLICATION}")
        client.set_keyspace(keyspace)
        yield client
        client.execute(f"DROP KEYSPACE {keyspace}")


@pytest.fixture(scope="module")
def client(cassandra: CassandraServer) -> Iterator[Any]:
    """A session of the official client, and an empty keyspace."""
    with session(cassandra, KEYSPACE) as client:
        yield client


def execute(client: Any, statement: str) -> Any:
    """Ask, and wait for the client to find a server that was restarted."""
    until = time.monotonic() + 120
    while True:
        try:
            return client.execute(statement)
        except NoHostAvailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class TestCassandra(StoreSuite):
    """The suite of every store, with the table that events get."""

    client: Any

    @pytest.fixture(scope="class")
    def server(self, cassandra: CassandraServer, client: Any) -> CassandraServer:
        """The session's server."""
        type(self).client = client
        return cassandra

    def url(self, **options: Any) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return self.server.url(f"{KEYSPACE}/events?{query}")

    def read(self) -> pl.DataFrame:
        columns = events(1).columns
        named = ", ".join(f'"{name}"' for name in columns)
        rows = [tuple(row) for row in execute(self.client, f"SELECT {named} FROM {KEYSPACE}.events")]
        schema = {**events(1).schema, "timestamp": pl.Datetime("us")}
        return pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("timestamp").dt.replace_time_zone("UTC"))

    def count(self) -> int:
        try:
            return int(self.client.execute(f"SELECT count(*) FROM {KEYSPACE}.events").one()[0])
        except Exception:
            return 0

    def clear(self) -> None:
        execute(self.client, f"DROP TABLE IF EXISTS {KEYSPACE}.events")

    def with_refused(self, table: pl.DataFrame) -> pl.DataFrame:
        # A key has at most 65,535 bytes: the server refuses the whole batch that the row is in.
        execute(
            self.client,
            f"CREATE TABLE {KEYSPACE}.events (source text, time_bucket timestamp, timestamp timestamp, offset bigint, "
            'body text, "http.response.status_code" bigint, '
            "PRIMARY KEY ((source, time_bucket), timestamp, offset, body))",
        )
        refused = pl.int_range(pl.len()) % 100 == 0
        return table.with_columns(body=pl.when(refused).then(pl.lit("x" * 70_000)).otherwise("body"))

    def wrong_credentials(self) -> str:
        return f"cassandra://cassandra:hunter2@{self.server.address}/{KEYSPACE}/events"

    def elsewhere(self, port: int) -> str:
        return f"cassandra://127.0.0.1:{port}/{KEYSPACE}/events"
