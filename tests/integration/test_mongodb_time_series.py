"""MongoDB's time series: what every sink of a store must do, though nothing there is unique or replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam.errors import OutputError, UsageError
from fabric_beam.kernel import MESSAGE
from fabric_beam.testing.servers.mongodb import PROGRAM, MongoServer
from tests.integration.store_suite import events, write

pytest.importorskip("pymongo")

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.mongodb.sink import MongoStore
from fabric_beam.schemes import SINKS
from tests.integration import test_mongodb as documents

client, place, store = documents.client, documents.place, documents.store


@pytest.mark.skipif(
    not os.environ.get(PROGRAM),
    reason=f"the server from PyPI looks at all rows of a time series: {PROGRAM} names another",
)
class TestTimeSeries(documents.TestMongoDB):
    """The suite again, on time series: nothing there is unique, so that what is repeated is looked for."""

    # A time series has no rules that a row could break.
    test_refused_rows_become_dead_letters = None

    def url(self, **options: Any) -> str:
        return super().url(timeseries="true", **options)

    def count(self) -> int:
        return int(self.client.suite[self.collection].count_documents({}))

    def test_a_repeated_run_replaces_and_adds_nothing(self, tmp_path: Path) -> None:
        """Nor does it replace anything: what is there stays."""
        for body in ("first", "second"):
            table = events(1000).with_columns(pl.lit(body).alias("body"))
            write(table, f"jsonl:{tmp_path}", self.url(rows=300, concurrency=4))
            assert self.stored().equals(table.with_columns(pl.lit("first").alias("body")))


def test_time_series_have_each_row_once(place: str, client: Any) -> None:
    """However often a bulk or a part of it is written, though nothing there is unique; refused rows are named."""
    table = events(200).with_columns(pl.lit("web").alias("service.name"))
    made = store(f"{place}?timeseries=true&meta=service")
    made.check(table.schema)
    for part in (table[:90], table, pl.concat([table[50:], table[:5]])):
        made.ensure(table.schema)
        assert made.write(part) is None
    found = list(made._documents.find())
    assert sorted(document["_id"] for document in found) == sorted(
        f"{s}:{n}" for s, n in table[["source", "offset"]].rows()
    )
    assert {document["service"]["name"] for document in found} == {"web"}
    options = next(client[place.split("/")[3]].list_collections(filter={"name": "rows"}))["options"]["timeseries"]
    assert (options["timeField"], options["metaField"]) == ("timestamp", "service")


def test_rows_without_a_time_are_refused_alone(place: str) -> None:
    """They have no place in a time series; the others of their bulk are written."""
    table = events(4).with_columns(timestamp=pl.when(pl.int_range(pl.len()) != 2).then("timestamp"))
    made = store(f"{place}?timeseries=true")
    made.ensure(table.schema)
    for _ in range(2):
        refused = made.write(table)
        assert refused is not None
        assert refused["offset"].to_list() == table["offset"][2:3].to_list()
        assert refused[MESSAGE].to_list() == ["has no 'timestamp', by which a time series is kept"]
        assert made._documents.count_documents({}) == 3


def test_time_series_expire_as_a_whole(place: str, client: Any) -> None:
    """`ttl` is the collection's; another one changes it."""
    database = client[place.split("/")[3]]

    def expires() -> Any:
        return next(database.list_collections(filter={"name": "rows"}))["options"]["expireAfterSeconds"]

    store(f"{place}?timeseries=true&ttl=3600").ensure(events(1).schema)
    assert expires() == 3600
    database.command("collMod", "rows", expireAfterSeconds=1800)
    if expires() != 1800:
        pytest.skip("this server takes no changes of a time series")
    store(f"{place}?timeseries=true&ttl=7200").ensure(events(1).schema)
    assert expires() == 7200


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ({"timeseries": {"timeField": "timestamp"}}, "", "Set timeseries=true"),
        ({}, "?timeseries=true", "is no time series"),
        ({"timeseries": {"timeField": "at"}}, "?timeseries=true", "'timeField': 'at'"),
        ({"timeseries": {"timeField": "timestamp"}}, "?timeseries=true&meta=body", "'metaField': 'body'"),
    ],
)
def test_time_series_of_another_kind(place: str, client: Any, made: dict[str, Any], options: str, message: str) -> None:
    """What is there and what was asked for are said before the run."""
    client[place.split("/")[3]].create_collection("rows", **made)
    with pytest.raises(OutputError, match=message):
        store(place + options).ensure(events(1).schema)


def test_time_series_need_a_replica_set() -> None:
    """Another server does not remember its writes: that is said before the run."""
    with MongoServer(options=("--standalone",), durable=False) as server:
        made = store(f"mongodb://{server.address}/d/rows?timeseries=true")
        with pytest.raises(OutputError, match="Make it a replica set of one"):
            made.ensure(events(1).schema)
        made.close()


def test_time_series_need_a_time_and_their_meta_field() -> None:
    """Said while the pipeline is built."""
    place = "mongodb://127.0.0.1/d/rows"
    for options, schema, message in (
        ("timeseries=true", {"n": pl.Int64()}, "be a time series: the rows have no time column 'timestamp'"),
        ("timeseries=true&meta=servce", {"timestamp": pl.Datetime(), "service.name": pl.String()}, "mean 'service'"),
    ):
        with pytest.raises(OutputError, match=message):
            MongoStore(Endpoint.parse(f"{place}?{options}", SINKS)).check(pl.Schema(schema))
    with pytest.raises(UsageError, match="timeseries=true"):
        MongoStore(Endpoint.parse(f"{place}?meta=service", SINKS))
