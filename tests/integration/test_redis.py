"""`redis:` on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam import Read
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, UsageError
from fabric_beam.schemes import SINKS
from fabric_beam.testing import read_all
from fabric_beam.testing.servers.redis import RedisServer
from tests.integration.store_suite import StoreSuite, dead_letters, events, write
from transforms import Enrich

redis = pytest.importorskip("redis")

from fabric_beam.io.redis.sink import RedisStore  # noqa: E402


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    """A client of the server, which is empty."""
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        client.flushall()
        yield client


class TestRedis(StoreSuite):
    """The suite of every store, with the layout `hash`."""

    def client(self) -> Any:
        return redis.Redis(port=self.server.port, decode_responses=True, retry_on_timeout=True, socket_timeout=60)

    def url(self, **options: Any) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis://{self.server.address}/0?{query}"

    def read(self) -> pl.DataFrame:
        with self.client() as client:
            keys = list(client.scan_iter("row:*", count=10_000, _type="hash"))
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            rows = pl.DataFrame(pipeline.execute(), schema=dict.fromkeys(events(1).columns, pl.String))
        return rows.with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))

    def count(self) -> int:
        with self.client() as client:
            return int(client.dbsize())

    def clear(self) -> None:
        with self.client() as client:
            client.flushall()
            client.acl_deluser("ann")

    def with_refused(self, table: pl.DataFrame) -> pl.DataFrame:
        with self.client() as client:
            for offset in table["offset"].gather_every(100):
                client.rpush(f"row:a.log:{offset}", "another kind of value")
        return table

    def wrong_credentials(self) -> str:
        with self.client() as client:
            client.acl_setuser("ann", enabled=True, passwords=["+other"], keys=["*"], commands=["+@all"])
        return f"redis://ann:hunter2@{self.server.address}/0"

    def elsewhere(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


def store(server: RedisServer, query: str = "") -> RedisStore:
    """A connected store."""
    connected = RedisStore(Endpoint.parse(f"redis://{server.address}/0?{query}", SINKS))
    connected.connect(30)
    return connected


def test_a_null_in_the_key_is_refused(server: RedisServer, client: Any) -> None:
    """The row would have no place; the others have theirs."""
    refused = store(server, "key=host:{host.name}").write(pl.DataFrame({"host.name": ["a", None, "b"], "n": [1, 2, 3]}))
    assert refused is not None
    assert refused.rows() == [(None, 2, "null", "host.name is null")]
    assert sorted(client.keys()) == ["host:a", "host:b"]
    nowhere = store(server).write(events(2).with_columns(source=pl.lit(None, pl.String)))
    assert nowhere is not None and nowhere.height == 2


def test_big_values_and_empty_tables(server: RedisServer, client: Any) -> None:
    """One of many megabytes, and nothing at all."""
    rows = events(2).with_columns(body=pl.lit("é" * (10 << 20)))
    assert store(server).write(rows) is None
    assert client.hstrlen("row:a.log:1", "body") == 20 << 20
    assert store(server).write(events(0)) is None
    assert client.dbsize() == 2


def test_a_full_server_passes(server: RedisServer, client: Any, tmp_path: Path) -> None:
    """OOM is waited for: no row is lost while it lasts."""
    client.config_set("maxmemory", "1")
    full = store(server)
    with pytest.raises(redis.ResponseError, match="OOM") as raised:
        full.write(events(10))
    assert full.transient(raised.value)
    timer = threading.Timer(1, client.config_set, ("maxmemory", "0"))
    timer.start()
    try:
        write(events(1000), f"jsonl:{tmp_path}", f"redis://{server.address}/0")
    finally:
        timer.join()
    assert client.dbsize() == 1000


def test_a_replica_passes(server: RedisServer, client: Any) -> None:
    """READONLY is what a server says that was the primary until now."""
    replica = store(server)
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(redis.ResponseError, match="READONLY") as raised:
            replica.write(events(10))
    finally:
        client.replicaof("NO", "ONE")
    assert replica.transient(raised.value)
    assert replica.write(events(10)) is None


def test_a_user_who_may_not_write_ends_the_run(server: RedisServer, client: Any, tmp_path: Path) -> None:
    """With the server's words and without the password."""
    client.acl_setuser(
        "reader", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+@read", "+ping", "+client"]
    )
    try:
        with pytest.raises(Exception, match="NOPERM") as raised:
            write(events(10), f"jsonl:{tmp_path}", f"redis://reader:s3cret@{server.address}/0")
    finally:
        client.acl_deluser("reader")
    assert "OutputError" in str(raised.value) or isinstance(raised.value, OutputError)
    assert "s3cret" not in str(raised.value)


def test_a_node_of_a_cluster_is_refused(tmp_path: Path) -> None:
    """At once, whether it is written, read, or looked up in."""
    rows = events(10)
    with RedisServer(settings={"cluster-enabled": "yes"}) as node:
        url = f"redis://{node.address}/0"
        kernel = Enrich(f"{url}?key=host:{{source}}", "source", columns={"a": pl.String}).bind(rows.schema)
        attempts = [lambda: write(rows, f"jsonl:{tmp_path}", url), lambda: read_all(Read(url)), lambda: kernel(rows)]
        for attempt in attempts:
            with pytest.raises(UsageError, match=r"a node of a Redis Cluster.*not supported.*a proxy"):
                attempt()
        kernel.close()


def test_a_key_of_another_node_ends_the_run(tmp_path: Path) -> None:
    """With the server's word, where the user may not ask whether there are others; nothing is tried for ever."""
    settings = {"cluster-enabled": "yes"}
    with RedisServer(settings=settings) as node, RedisServer(settings=settings) as other:
        clients = [redis.Redis(port=server.port, decode_responses=True) for server in (node, other)]
        halves = [("0", "8191"), ("8192", "16383")]
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", other.port, other.cluster_port)
        for client, half in zip(clients, halves, strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", *half)
        until = time.monotonic() + 120
        while any(client.cluster("info")["cluster_state"] != "ok" for client in clients):
            assert time.monotonic() < until
            time.sleep(0.1)
        clients[0].acl_setuser("ann", enabled=True, passwords=["+right"], keys=["*"], commands=["+@all", "-info"])
        with pytest.raises(Exception, match="MOVED"):
            write(events(1000), f"jsonl:{tmp_path}", f"redis://ann:right@{node.address}/0")
        assert dead_letters(tmp_path).height == 0


def test_another_database(server: RedisServer, client: Any) -> None:
    """The number after the host chooses it."""
    other = RedisStore(Endpoint.parse(f"redis://{server.address}/3", SINKS))
    other.connect(30)
    other.write(events(2))
    assert client.dbsize() == 0
    with redis.Redis(port=server.port, db=3) as third:
        assert third.dbsize() == 2
