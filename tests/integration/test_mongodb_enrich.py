"""`Enrich` from MongoDB, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import polars as pl
import pytest

from fabric_beam.errors import InputError, SchemaError, UsageError
from fabric_beam.testing import collect_with_dead_letters
from fabric_beam.testing.servers.mongodb import MongoServer
from tests.integration.lookup_suite import COLUMNS, KEYS, LookupSuite
from transforms import Enrich

pymongo = pytest.importorskip("pymongo")
bson = pytest.importorskip("bson")


@pytest.fixture
def server(mongodb: MongoServer) -> MongoServer:
    return mongodb


class TestMongoDBEnrich(LookupSuite):
    """The suite of every lookup."""

    MANY: ClassVar[int] = 1_200

    @pytest.fixture(autouse=True)
    def _client(self, server: MongoServer) -> Iterator[None]:
        with pymongo.MongoClient(f"mongodb://{server.address}") as self.client:
            yield

    def url(self, **options: Any) -> str:
        return f"mongodb://{self.server.address}/enrich/hosts?" + "&".join(f"{k}={v}" for k, v in options.items())

    def fill(self, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
        with pymongo.MongoClient(f"mongodb://{self.server.address}") as client:
            hosts = client.enrich.hosts
            hosts.drop()
            hosts.create_index([("host.name", 1), ("port", 1)])
            documents = []
            for (host, port), row in rows.items():
                nested = {"rack": {"number": row["rack.number"]}} if "rack.number" in row else {}
                documents.append({"host": {"name": host}, "port": port, "tier": row["tier"], **nested, "more": [1]})
            hosts.insert_many(documents)

    def wrong_credentials(self) -> str:
        return f"mongodb://ann:hunter2@{self.server.address}/enrich/hosts?authSource=admin"

    def test_columns_that_are_not_declared(self) -> None:
        """They are those of a sample, without the keys and `_id`."""
        kernel = Enrich(self.url(), KEYS, prefix="x.").bind(pl.Schema({"host.name": pl.String(), "port": pl.Int64()}))
        kept = kernel(pl.DataFrame({"host.name": ["a"], "port": [1]}))
        kernel.close()
        assert kept.row(0, named=True) == {
            "host.name": "a", "port": 1, "x.tier": "gold", "x.rack.number": 7, "x.more": [1],
        }  # fmt: skip
        with pytest.raises(SchemaError, match=r"no column 'tir'. Did you mean 'tier'"):
            Enrich(self.url(), KEYS, columns=["tir"]).bind(kept.schema)

    def test_no_documents_tell_no_columns(self) -> None:
        """It is said how to declare them."""
        url = self.url().replace("hosts", "nothing")
        with pytest.raises(UsageError, match=r"no documents to find the columns by.*fabric\.columns"):
            Enrich(url, "port").bind(pl.Schema({"port": pl.Int64()}))

    def test_a_server_that_is_not_there_while_columns_are_asked(self) -> None:
        """It is said how to do without."""
        with pytest.raises(InputError, match=r"cannot be asked for its columns.*declare them"):
            Enrich("mongodb://127.0.0.1:1/enrich/hosts?fabric.timeout=0.5", "port").bind(
                pl.Schema({"port": pl.Int64()})
            )

    def test_object_ids_and_types(self) -> None:
        """An `_id` is found by its text; values are of the columns' types, or their documents dead letters."""
        ids = [bson.ObjectId() for _ in range(2)]
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.client.enrich.typed.drop()
        self.client.enrich.typed.insert_many(
            [
                {"_id": ids[0], "at": noon, "price": bson.Decimal128("1.5"), "tags": ["a"], "n": 3.0},
                {"_id": ids[1], "at": "noon", "n": 1},
                {"_id": "text", "n": 2},
            ]
        )
        events = pl.DataFrame({"_id": [*map(str, ids), "text", "other"]})
        columns = {"at": pl.Datetime("us", "UTC"), "price": pl.Float64, "tags": pl.List(pl.String), "n": pl.Int64}
        kept, letters = collect_with_dead_letters(
            events, Enrich(self.url().replace("hosts", "typed"), "_id", columns=columns)
        )
        assert kept.drop("_id").rows() == [(noon, 1.5, ["a"], 3), (None, None, None, 2), (None, None, None, None)]
        assert "at is not Datetime" in letters["message"].item()

    def test_arrays_do_not_stand_for_their_elements(self) -> None:
        """A document that the server finds by an element of an array is not the key's."""
        self.client.enrich.hosts.insert_one({"host": {"name": ["z", "y"]}, "port": 1, "tier": "array"})
        kept, _ = self.enrich(pl.DataFrame({"host.name": ["z"], "port": [1]}))
        assert kept.select(*COLUMNS).rows() == [(None, None)]
