"""`redis:` read, on a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam import Read, WriteTo
from fabric_beam.errors import InputError, RejectedRowsError
from fabric_beam.testing import batch, collect, read_all, run
from fabric_beam.testing.servers.redis import RedisServer
from tests.integration.store_read_suite import StoreReadSuite

redis = pytest.importorskip("redis")


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    """A client of the server, which is empty."""
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def url(redis_server: RedisServer, client: Any) -> str:
    """The server's URL."""
    return f"redis://{redis_server.address}/0"


class TestReadRedis(StoreReadSuite):
    """The shared suite, with the layout `hash`."""

    layout = "as=hash"

    @pytest.fixture
    def server(self, redis_server: RedisServer) -> RedisServer:
        """The session's server."""
        return redis_server

    def url(self, **options: Any) -> str:
        query = "&".join([self.layout, *(f"{name}={value}" for name, value in options.items())])
        return f"redis://{self.server.address}/0?{query}"

    def clear(self) -> None:
        with redis.Redis(port=self.server.port) as client:
            client.flushall()

    def missing(self) -> tuple[str, str]:
        run(batch(a=[1], source=["a"], offset=[0]), WriteTo(self.url()))
        return f"redis://{self.server.address}/0?prefix=raw", r"whose key is like 'raw:\*' among the 1 keys"

    def wrong_credentials(self) -> str:
        with redis.Redis(port=self.server.port) as client:
            client.acl_setuser("ann", enabled=True, passwords=["+other"], keys=["*"], commands=["+@all"])
        return f"redis://ann:hunter2@{self.server.address}/0"

    def elsewhere(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


class TestReadJson(TestReadRedis):
    """The same with strings of JSON."""

    layout = "as=json"


class TestReadStream(TestReadRedis):
    """The same with the entries of a stream."""

    layout = "as=stream&key=events"

    def missing(self) -> tuple[str, str]:
        run(batch(a=[1], source=["a"], offset=[0]), WriteTo(self.url()))
        return f"redis://{self.server.address}/0?as=stream&key=evnets", "Did you mean 'events'"


@pytest.mark.parametrize("layout", ["as=hash", "as=json", "as=stream&key=s"])
def test_types_come_back(url: str, layout: str) -> None:
    """What the sink wrote: numbers, times with all their digits, nested values, texts that only look like numbers."""
    table = pl.DataFrame(
        {
            "text": ["é\r\n\0", "1", ""],
            "padded": ["007", "010", None],
            "number": [1, -(10**17), None],
            "float": [0.1, 1e300, 2.0],
            "flag": [True, False, None],
            "time": [datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC), datetime(1969, 1, 1, tzinfo=UTC), None],
            "local": [datetime(2026, 1, 2, 3, 4, 5, 1), None, None],
            "day": [date(2026, 1, 2), None, date(1, 1, 1)],
            "hour": [time(1, 2, 3, 4), None, None],
            "tags": [["a", "é"], [], None],
            "users": [[{"name": "ann", "ids": [1, 2]}, {"name": "é", "ids": []}], [], None],
            "place": [{"city": "x", "lat": 1.5}, {"city": "y", "lat": 2.0}, None],
            "source": ["a", "a", "a"],
            "offset": [0, 1, 2],
        }
    )
    if layout == "as=json":
        table = table.drop("hour")
    run(table, WriteTo(f"{url}?{layout}"))
    got = read_all(Read(f"{url}?{layout}")).sort("offset")
    assert got.select(table.columns).equals(table)
    assert got.drop(table.columns).columns == ["attributes"]
    assert got["attributes"].null_count() == 3


def test_floats_that_are_no_numbers_come_back(url: str) -> None:
    """From hashes, where they have texts."""
    table = batch(a=[float("inf"), float("-inf"), 1.5], offset=[0, 1, 2], source=["a"] * 3)
    assert collect_back(table, url).sort("offset").equals(table)


def test_keys_are_named_as_to_the_sink(url: str, client: Any) -> None:
    """By the template, a prefix or a pattern, and no others are read; rows without provenance get their keys."""
    run(batch(host=["a", "b*"], tier=["gold", "tin"]), WriteTo(f"{url}?key=host:[{{host}}]"))
    client.hset("hosts", "host", "x")
    client.set("host:[string]", "x")
    for options in ("key=host:[{host}]", "match=host:*"):
        got = read_all(Read(f"{url}?{options}")).sort("host")
        assert got.select("host", "tier").rows() == [("a", "gold"), ("b*", "tin")]
        assert got["source"].to_list() == [f"{url}/host:[a]", f"{url}/host:[b*]"]


def test_names_that_are_no_provenance_are_kept(url: str, client: Any) -> None:
    """A `source` without an `offset` is a field like others."""
    client.hset("row:1", mapping={"source": "web", "n": "1"})
    got = read_all(Read(url)).drop("attributes")
    assert got.to_dicts() == [{"n": 1, "attributes.source": "web", "source": f"{url}/row:1", "offset": 0}]


def test_fields_that_the_sample_had_not_are_kept(url: str, client: Any) -> None:
    """They are in `attributes`, whatever the layout is."""
    for number in range(3):
        client.xadd("s", {"n": number, **({"x": "é"} if number == 2 else {})})
    got = read_all(Read(f"{url}?as=stream&key=s&sample=1")).sort("n")
    assert got.select("n", "attributes").rows() == [(0, None), (1, None), (2, '{"x":"é"}')]


def test_a_value_of_another_type_rejects_its_row(url: str, client: Any, tmp_path: Path) -> None:
    """With its key and the field; a contract says what types there are."""
    for number in range(5):
        client.set(f"row:{number}", json.dumps({"n": number}) if number < 4 else '{"n": "x"}')
    with pytest.raises(RejectedRowsError, match="row:4: the field 'n' is not Int64: 'x'"):
        read_all(Read(f"{url}?as=json&sample=1&schema={contract(tmp_path, 'int')}"))
    got = read_all(Read(f"{url}?as=json&schema={contract(tmp_path, 'string')}"))
    assert sorted(got["n"]) == ["0", "1", "2", "3", "x"]
    client.set("row:5", "no JSON")
    with pytest.raises(RejectedRowsError, match="row:5: not a JSON object"):
        read_all(Read(f"{url}?as=json&schema={contract(tmp_path, 'string')}"))


def test_another_kind_of_value_in_between_is_no_row(url: str, client: Any) -> None:
    """Keys of hashes are read, and no others."""
    client.hset("row:1", "n", "1")
    client.lpush("row:2", "x")
    assert read_all(Read(url)).height == 1


def test_nothing_is_an_empty_table_if_a_contract_names_the_columns(url: str, tmp_path: Path) -> None:
    """Without one it would have no columns, and is an error."""
    got = read_all(Read(f"{url}?schema={contract(tmp_path, 'float')}"))
    assert got.schema["n"] == pl.Float64
    assert got.height == 0
    with pytest.raises(InputError, match="there is no hash"):
        read_all(Read(url))


def contract(folder: Path, kind: str) -> Path:
    """A contract with one field `n`."""
    path = folder / "contract.yaml"
    path.write_text(f"contract: rows\nversion: 1\nfields:\n  n: {{type: {kind}}}\n")
    return path


def collect_back(table: pl.DataFrame, url: str) -> pl.DataFrame:
    """Rows, written and read."""
    collect(table, WriteTo(url))
    return read_all(Read(url)).select(table.columns)
