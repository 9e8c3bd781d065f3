"""`mongodb:` read, on a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from fabric_beam import Read, WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError, RejectedRowsError, SchemaError
from fabric_beam.schemes import SOURCES
from fabric_beam.testing import batch, read_all, run
from fabric_beam.testing.servers.mongodb import MongoServer
from tests.integration.store_read_suite import StoreReadSuite
from tests.integration.store_suite import dead_letters

pymongo = pytest.importorskip("pymongo")
bson = pytest.importorskip("bson")

from fabric_beam.io.mongodb.source import MongoReader  # noqa: E402


@pytest.fixture(scope="module")
def client(mongodb: MongoServer) -> Iterator[Any]:
    """The official client."""
    with pymongo.MongoClient(f"mongodb://{mongodb.address}") as client:
        yield client


@pytest.fixture
def rows(client: Any, request: pytest.FixtureRequest) -> Any:
    """An empty collection."""
    return client.read[request.node.name]


@pytest.fixture
def url(mongodb: MongoServer, rows: Any) -> str:
    """Its URL."""
    return f"mongodb://{mongodb.address}/read/{rows.name}"


class TestReadMongoDB(StoreReadSuite):
    """The shared suite."""

    @pytest.fixture(scope="class")
    def server(self, mongodb: MongoServer) -> MongoServer:
        """The session's server."""
        return mongodb

    def url(self, **options: Any) -> str:
        query = "&".join(f"{k}={v}" for k, v in options.items())
        return f"mongodb://{self.server.address}/suite/{self.collection}?{query}"

    def clear(self) -> None:
        # Faster than to drop one.
        self.collection = f"read{time_ns()}"

    def missing(self) -> tuple[str, str]:
        run(batch(a=[1], source=["a"], offset=[0]), WriteTo(self.target()))
        return f"mongodb://{self.server.address}/suite/{self.collection[:-4]}", f"Did you mean '{self.collection}'"

    def wrong_credentials(self) -> str:
        return f"mongodb://ann:hunter2@{self.server.address}/suite/read?authSource=admin"

    def elsewhere(self, port: int) -> str:
        return f"mongodb://127.0.0.1:{port}/suite/read"


def test_a_view_is_refused_before_the_run(client: Any, rows: Any, url: str) -> None:
    """With what to do instead."""
    client.read.create_collection(rows.name, viewOn="others", pipeline=[])
    with pytest.raises(InputError, match="is a view, whose documents have no _id"):
        read_all(Read(url))


def test_types_come_back(rows: Any, url: str) -> None:
    """What the sink wrote: nested, null, in lists; times to the millisecond, what BSON lacks as it is stored."""
    table = pl.DataFrame(
        {
            "text": ["é\r\n\0", None, ""],
            "deep.er.number": [1, 2**62, None],
            "float": [0.1, float("inf"), None],
            "flag": [True, False, None],
            "time": [datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC), datetime(1969, 1, 1, tzinfo=UTC), None],
            "day": [date(2026, 1, 2), None, date(1, 1, 1)],
            "hour": [time(1, 2, 3, 4), None, None],
            "took": [timedelta(microseconds=5), None, None],
            "money": [Decimal("1.50"), Decimal("-99999999999999999999.25"), None],
            "bytes": [b"\0\xff", b"", None],
            "tags": [["a", None], [], None],
            "users": [[{"name": "ann", "ids": [1, 2]}, {"name": None, "ids": []}], [], None],
            "place": [{"city": "x", "at": {"lat": 1.5}}, {"city": "y", "at": {"lat": None}}, None],
            "source": ["a", "a", "a"],
            "offset": [0, 1, 2],
        },
        schema_overrides={"money": pl.Decimal(38, 2)},
    )
    run(table, WriteTo(url))
    expected = table.with_columns(
        pl.col("day").cast(pl.Datetime("us", "UTC")),
        pl.col("hour").dt.strftime("%H:%M:%S%.6f"),
        pl.col("took").dt.total_microseconds(),
        pl.col("place").struct.field("city").alias("place.city"),
        pl.col("place").struct.field("at").struct.field("lat").alias("place.at.lat"),
    ).drop("place")
    got = read_all(Read(url)).sort("offset")
    assert got.select(expected.columns).equals(expected)
    assert got.drop(expected.columns).columns == ["attributes"]
    assert got["attributes"].null_count() == 3


def test_values_that_columns_have_no_type_for_are_texts(rows: Any, url: str) -> None:
    """Object ids, UUIDs and regular expressions; numbers in a column of texts; lists of several kinds."""
    number = bson.ObjectId("65f0c0ffee65f0c0ffee65f0")
    uuid = UUID(int=7)
    binary = bson.Binary.from_uuid(uuid)
    rows.insert_one({"_id": number, "u": binary, "r": bson.Regex("^a"), "mixed": ["a", 1, {"b": 2.5}], "n": "x"})
    rows.insert_one({"_id": 5, "n": 17})
    got = read_all(Read(url)).sort("n").drop("attributes", "offset")
    assert got.row(1, named=True) == {
        "_id": str(number),
        "u": str(uuid),
        "r": '{"$regularExpression": {"pattern": "^a", "options": ""}}',
        "mixed": ["a", "1", '{"b":2.5}'],
        "n": "x",
        "source": f"{url}/{number}",
    }
    assert got.select("_id", "n").row(0) == ("5", "17")


def test_ids_of_every_type_are_read_once(rows: Any, url: str) -> None:
    """In any number of ranges, and however small the pages are; no two rows have the same source."""
    ids = [
        *(*range(300), *(f"s{n}" for n in range(300)), *(bson.ObjectId() for _ in range(300))),
        *({"a": 1, "b": n} for n in range(20)),
        *(float("nan"), float("inf"), None, True, False, 2.5, bson.Decimal128("3.75"), b"abc", "5", "null", ""),
        *(bson.MinKey(), bson.MaxKey(), datetime(2020, 1, 1), bson.Timestamp(5, 1), bson.Binary(b"", 3)),
    ]
    rows.insert_many([{"_id": value, "n": n} for n, value in enumerate(ids)])
    for options in ("ranges=9", "rows=50", "ranges=9&rows=7"):
        got = read_all(Read(f"{url}?{options}"))
        assert sorted(got["n"]) == list(range(len(ids)))
        assert got["source"].n_unique() == len(ids)


def test_a_filter_and_fields(rows: Any, url: str) -> None:
    """Only these documents and these columns."""
    rows.insert_many(
        [{"_id": f"i{n}", "level": ["info", "error"][n % 2], "http": {"m": "GET", "s": n}} for n in range(9)]
    )
    got = read_all(Read(url + '?fields=http.s&filter={"level":"error","http.s":{"$gt":3}}&ranges=3'))
    assert got.drop("source", "attributes").sort("http.s").rows() == [("i5", 5, 0), ("i7", 7, 0)]


def test_fields_that_the_sample_had_not_are_kept(rows: Any, url: str) -> None:
    """They are in `attributes`, together with what the document has there; and a document that is a value elsewhere."""
    rows.insert_one({"_id": "a", "n": {"m": 1}, "attributes": '{"old": true}'})
    rows.insert_many(
        [{"_id": "b", "n": {"m": 2, "k": [1]}, "x": {"y": 1.5}, "attributes": '{"old": 1}'}, {"_id": "c", "n": 7}]
    )
    schema = {"_id": pl.String(), "n.m": pl.Int64(), "attributes": pl.String()}
    reader = MongoReader(Endpoint.parse(f"{url}?sample=1", SOURCES))
    reader.connect(30)
    # A sample is also of documents from anywhere: until it is of the first one alone.
    while reader.schema(pl.Schema()) != pl.Schema(schema):
        pass
    table = pl.concat([page.table for split in reader.splits() for page in reader.read(split)])
    reader.close()
    assert table.rows() == [
        ("a", 1, '{"old": true}'),
        ("b", 2, '{"old":1,"n.k":[1],"x.y":1.5}'),
        ("c", None, '{"n":7}'),
    ]


def test_a_value_of_another_type_is_a_dead_letter(rows: Any, url: str, tmp_path: Path) -> None:
    """With the document, its id, and which field it is; without an error handler the run says so and ends."""
    contract = tmp_path / "contract.yaml"
    contract.write_text("contract: rows\nversion: 1\nfields:\n  n: {type: int}\n  deep.at: {type: timestamp}\n")
    rows.insert_many([{"_id": "a", "n": 1}, {"_id": "c", "n": 2.0, "deep": {"at": "2026-01-01T00:00:00+01:00"}}])
    rows.insert_many([{"_id": "b", "n": "x", "deep": {"at": None}}, {"_id": "d", "deep": {"at": "never"}}])
    with pytest.raises(RejectedRowsError, match="/b: the field 'n' is not Int64: 'x'"):
        read_all(Read(f"{url}?schema={contract}"))
    _run_logs(f"{url}?schema={contract}", tmp_path)
    letters = dead_letters(tmp_path / "dead_letters").sort("source")
    assert letters["source"].to_list() == [f"{url}/b", f"{url}/d"]
    assert json.loads(letters["payload"][0]) == {"_id": "b", "n": "x", "deep": {"at": None}}
    assert letters["rule"].to_list() == ["type", "type"]
    events = _events(tmp_path)
    assert events.sort("n").select("n", "deep.at").rows() == [(1, None), (2, datetime(2025, 12, 31, 23, tzinfo=UTC))]


def test_lines_in_a_collection_are_parsed(rows: Any, url: str, tmp_path: Path) -> None:
    """A collection of raw lines is an input of the logs pipeline like any file of them."""
    line = '::1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8.0"'
    rows.insert_many([{"_id": n, "body": line if n else "?"} for n in range(20)])
    _run_logs(url, tmp_path, "combined")
    events = _events(tmp_path)
    assert events["http.response.status_code"].to_list() == [200] * 19
    assert events["source"].n_unique() == 19
    assert json.loads((tmp_path / "ledger.json").read_text())["balanced"]


def test_an_empty_collection_has_no_rows(client: Any, rows: Any, url: str) -> None:
    """But columns, if a contract says so."""
    client.read.create_collection(rows.name)
    assert read_all(Read(url)).height == 0


def test_collections_together_have_each_others_columns(client: Any, rows: Any, url: str) -> None:
    """Of one type, or it is an error."""
    rows.insert_one({"_id": "a", "n": 1})
    client.read[f"{rows.name}_2"].insert_one({"_id": "b", "m": "x"})
    got = read_all(Read(url, f"{url}_2")).sort("_id").select("_id", "n", "m")
    assert got.rows() == [("a", 1, None), ("b", None, "x")]
    client.read[f"{rows.name}_2"].insert_one({"_id": "c", "n": "x"})
    with pytest.raises(SchemaError, match="'n' is String, and Int64"):
        read_all(Read(url, f"{url}_2"))


def _run_logs(url: str, folder: Path, format: str = "none") -> None:
    from fabric_beam.run import main
    from pipelines.logs import build
    from pipelines.parts.options import parse_logs

    arguments = ["--input", url, "--format", format, "--sink", f"*=parquet:{folder}"]
    arguments += ["--detector", "none", "--report", "none"]
    if format == "none":
        arguments += ["--map", "timestamp=CAST('2026-01-01' AS TIMESTAMP)"]
    assert main(parse_logs, build, arguments) == 0


def _events(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in (folder / "events").rglob("*.parquet")])
