"""MongoDB: what every sink of a store must do, and its documents, types, indexes and errors."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from time import time_ns
from typing import Any

import polars as pl
import pytest

from fabric_beam.errors import OutputError
from fabric_beam.kernel import MESSAGE
from fabric_beam.testing.servers.mongodb import MongoServer
from tests.integration.store_suite import StoreSuite, dead_letters, events, write

pymongo = pytest.importorskip("pymongo")
bson = pytest.importorskip("bson")

from fabric_beam.endpoints import Endpoint  # noqa: E402
from fabric_beam.io.mongodb.sink import MongoStore  # noqa: E402
from fabric_beam.schemes import SINKS  # noqa: E402


@pytest.fixture(scope="module")
def client(mongodb: MongoServer) -> Iterator[Any]:
    """The official client, which waits for a server that is being restarted."""
    with pymongo.MongoClient(f"mongodb://{mongodb.address}", tz_aware=True) as client:
        client.admin.command("createUser", "ann", pwd="right", roles=["root"])
        yield client
        client.admin.command("dropUser", "ann")


class TestMongoDB(StoreSuite):
    """The shared suite."""

    @pytest.fixture(scope="class")
    def server(self, mongodb: MongoServer) -> MongoServer:
        """The session's server."""
        return mongodb

    @pytest.fixture(autouse=True)
    def _client(self, client: Any) -> None:
        self.client = client

    def url(self, **options: Any) -> str:
        return f"mongodb://{self.server.address}/suite/{self.collection}?" + "&".join(
            f"{k}={v}" for k, v in options.items()
        )

    def read(self) -> pl.DataFrame:
        documents = [
            {**document, "http.response.status_code": document["http"]["response"]["status_code"]}
            for document in self.client.suite[self.collection].find({}, {"_id": False})
        ]
        return pl.DataFrame(documents, schema=events(1).schema)

    def count(self) -> int:
        return int(self.client.suite[self.collection].estimated_document_count())

    def clear(self) -> None:
        # Faster than to drop one.
        self.collection = f"events{time_ns()}"

    def with_refused(self, table: pl.DataFrame) -> pl.DataFrame:
        self.client.suite.create_collection(self.collection, validator={"body": {"$ne": "refused"}})
        refused = pl.int_range(pl.len()) % 100 == 0
        return table.with_columns(body=pl.when(refused).then(pl.lit("refused")).otherwise("body"))

    def wrong_credentials(self) -> str:
        return f"mongodb://ann:hunter2@{self.server.address}/suite/events?authSource=admin"

    def elsewhere(self, port: int) -> str:
        return f"mongodb://127.0.0.1:{port}/suite/events"


@pytest.fixture
def place(client: Any, mongodb: MongoServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A URL of a collection `rows` in a database of the test's own."""
    name = request.node.name[5:50].partition("[")[0]
    client.drop_database(name)
    yield f"mongodb://{mongodb.address}/{name}/rows"
    client.drop_database(name)


def store(url: str) -> MongoStore:
    """A store that is connected."""
    made = MongoStore(Endpoint.parse(url, SINKS))
    made.connect(30)
    return made


def written(url: str, table: pl.DataFrame) -> list[dict[str, Any]]:
    """The documents that a table's rows became, in the order of the rows' `n`, where there is one."""
    made = store(url)
    made.ensure(table.schema)
    refused = made.write(table)
    assert refused is None, refused[MESSAGE].to_list()
    found = list(made._documents.find({}, sort=[("n", 1)]))
    made.close()
    return found


def test_rows_are_nested_documents_without_nulls(place: str) -> None:
    """Dotted names are paths, structs too; what is null, and what would be empty then, is left out; order is kept."""
    table = pl.DataFrame(
        {
            "n": [1, 2],
            "http.request.method": ["GET", None],
            "http.request.header.referer": [None, None],
            "http.response.status_code": [200, None],
            "url": [{"path": "/é\0€🙂", "query": None}, None],
            "source": ["a.log", "a.log"],
            "offset": [0, 70],
        }
    )
    first, second = written(place, table)
    assert first == {
        "_id": "a.log:0",
        "n": 1,
        "http": {"request": {"method": "GET"}, "response": {"status_code": 200}},
        "url": {"path": "/é\0€🙂"},
        "source": "a.log",
        "offset": 0,
    }
    assert list(first) == ["_id", "n", "http", "url", "source", "offset"]
    assert second == {"_id": "a.log:70", "n": 2, "source": "a.log", "offset": 70}


def test_dotted_names_can_stay(place: str) -> None:
    """nested=false keeps names as they are, so that `a` and `a.b` can be in one row."""
    table = pl.DataFrame({"n": [1], "a": [2], "a.b": [3], "s": [{"c.d": 4}], "source": ["x"], "offset": [0]})
    [document] = written(f"{place}?nested=false", table)
    assert document == {"_id": "x:0", "n": 1, "a": 2, "a.b": 3, "s": {"c.d": 4}, "source": "x", "offset": 0}


NOW = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (-(2**63), pl.Int64, -(2**63)),
        (2**64 - 1, pl.UInt64, bson.Decimal128(str(2**64 - 1))),
        (7, pl.UInt64, 7),
        (-(10**33), pl.Int128, bson.Decimal128(str(-(10**33)))),
        (True, pl.Boolean, True),
        (1.5, pl.Float32, 1.5),
        (float("inf"), pl.Float64, float("inf")),
        ("", pl.String, ""),
        ("a", pl.Categorical, "a"),
        ("a", pl.Enum(["a"]), "a"),
        (b"\0\xff", pl.Binary, b"\0\xff"),
        (decimal.Decimal("-12.340"), pl.Decimal(38, 3), bson.Decimal128("-12.340")),
        (NOW, pl.Datetime("us", "UTC"), datetime(2026, 3, 4, 5, 6, 7, 123000)),
        (NOW, pl.Datetime("ns", "Asia/Tokyo"), datetime(2026, 3, 4, 5, 6, 7, 123000)),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999), pl.Datetime("us"), datetime(1969, 12, 31, 23, 59, 59, 999000)),
        (date(2026, 3, 4), pl.Date, datetime(2026, 3, 4)),
        (time(5, 6, 7, 8), pl.Time, "05:06:07.000008"),
        (timedelta(seconds=1, microseconds=2), pl.Duration("us"), 1_000_002),
        ([1, None], pl.List(pl.Int64), [1, None]),
        ([], pl.List(pl.Int64), []),
        ([[date(2026, 3, 4)]], pl.List(pl.List(pl.Date)), [[datetime(2026, 3, 4)]]),
        ([1.0, 2.0], pl.Array(pl.Float64, 2), [1.0, 2.0]),
        ([{"a": NOW, "b": None}], pl.List(pl.Struct({"a": pl.Datetime("us", "UTC"), "b": pl.Int8})),
         [{"a": datetime(2026, 3, 4, 5, 6, 7, 123000), "b": None}]),
    ],
)  # fmt: skip
def test_types(place: str, value: Any, dtype: Any, expected: Any) -> None:
    """Every type of a column has one in BSON."""
    table = pl.DataFrame({"n": [1, 2], "v": pl.Series([value, None], dtype=dtype, strict=False)})
    first, second = written(place, table)
    assert first["v"] == expected
    assert isinstance(first["v"], type(expected))
    assert "v" not in second


def test_empty_tables_and_nothing_but_nulls(place: str) -> None:
    """No rows are no documents; a row of nulls is a document of its identity."""
    table = pl.DataFrame({"a.b": [None], "c": pl.Series([None], dtype=pl.Int8), "source": ["x"], "offset": [3]})
    made = store(place)
    made.ensure(table.schema)
    assert made.write(table.clear()) is None
    assert made.write(table) is None
    assert list(made._documents.find()) == [{"_id": "x:3", "source": "x", "offset": 3}]


def test_key_columns_are_the_identity(place: str) -> None:
    """Rows with the same key are one document, of the last row, in a bulk too."""
    table = pl.DataFrame({"n": [1, 2, 3], "service.name": ["a", "b", "a"], "rate": [0.1, 0.2, 0.3]})
    for _ in range(3):
        assert [(d["service"]["name"], d["n"]) for d in written(f"{place}?key=service.name", table)] == [
            ("b", 2),
            ("a", 3),
        ]


def test_rows_that_are_there_are_replaced_whole(place: str) -> None:
    """Fields of an earlier version are gone, whether or not the bulk before was of new rows."""
    rows = pl.DataFrame({"n": range(6), "old": range(6), "source": ["x"] * 6, "offset": range(6)})
    made = store(place)
    made.write(rows[:4])
    for _ in range(2):
        assert made.write(rows.drop("old")) is None
        found = list(made._documents.find(sort=[("n", 1)]))
        assert [document["n"] for document in found] == list(range(6))
        assert all("old" not in document for document in found)
    # New rows again, after replacing.
    assert made.write(rows.with_columns(source=pl.lit("y"))) is None
    assert made._documents.count_documents({}) == 12


def test_what_cannot_be_a_document_is_refused_alone(place: str) -> None:
    """Too large for a document, too many digits: these rows are refused with the reason, the others are written."""
    table = pl.DataFrame(
        {
            "n": range(20),
            "body": ["x" * (17 << 20) if n == 3 else "x" for n in range(20)],
            "v": pl.Series([10**36 + 1 if n == 8 else 1 for n in range(20)], dtype=pl.Int128),
            "t": pl.Series([[2**62 if n == 11 else 0] for n in range(20)], dtype=pl.List(pl.Datetime("us"))),
        }
    )
    made = store(place)
    for _ in range(2):
        refused = made.write(table)
        assert refused is not None
        assert refused["n"].to_list() == [3, 8, 11]
        large, digits, year = refused[MESSAGE]
        assert "17,825,8" in large
        assert "Inexact" in digits
        assert "year" in year
        assert made._documents.count_documents({}) == 17


def test_a_unique_index_refuses_its_rows_alone(place: str) -> None:
    """A row that another document stands in the way of is refused; one that only meets its own is replaced."""
    made = store(place)
    made._documents.create_index("user", unique=True)
    table = pl.DataFrame({"n": [1, 2, 3], "user": ["a", "b", "a"], "source": ["x"] * 3, "offset": [1, 2, 3]})
    for _ in range(3):
        refused = made.write(table)
        assert refused is not None
        assert refused["n"].to_list() == [3]
        assert "11000" in refused[MESSAGE][0]
        assert "user" in refused[MESSAGE][0]


def test_ttl_makes_and_changes_the_index(place: str) -> None:
    """The server removes rows so many seconds after their `timestamp`; another number changes the index."""
    made = store(place)
    for seconds in (60, 60, 90):
        store(f"{place}?ttl={seconds}").ensure(events(1).schema)
        index = made._documents.index_information()["timestamp_1"]
        assert index["expireAfterSeconds"] == seconds
    with pytest.raises(OutputError, match="no time column 'timestamp'"):
        store(f"{place}?ttl=60").check(pl.Schema({"a": pl.Int64()}))


def test_views_are_not_written_to(place: str, client: Any) -> None:
    """That is said before the run."""
    client[place.split("/")[3]].create_collection("rows", viewOn="others", pipeline=[])
    with pytest.raises(OutputError, match="is a view"):
        store(place).ensure(events(1).schema)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["a", "a.b"], "", "'a' and 'a.b'"),
        (["a.b.c", "a.b"], "", "'a.b' and 'a.b.c'"),
        (["_id"], "", "'_id'"),
        (["$set"], "", "'\\$set'"),
        (["a..b"], "", "nested=false"),
        (["a.$b"], "", "nested=false"),
        (["service.name"], "?key=service.nam", "Did you mean 'service.name'"),
    ],
)
def test_columns_that_cannot_be_fields(place: str, columns: list[str], options: str, message: str) -> None:
    """Said before the run, with the column."""
    with pytest.raises(OutputError, match=message):
        store(place + options).check(pl.Schema(dict.fromkeys(columns, pl.Int64())))


def test_columns_that_bson_has_no_type_for(place: str) -> None:
    """Said before the run, with the column and its type."""
    with pytest.raises(OutputError, match="'thing': Object"):
        store(place).check(pl.Schema({"thing": pl.Object()}))


def test_a_write_concern_that_cannot_be_met_ends_the_run(place: str, client: Any, tmp_path: Path) -> None:
    """No row is at fault, and waiting does not help: the reason is said without the rows."""
    client[place.split("/")[3]].create_collection("rows")
    with pytest.raises(OutputError, match="100: Not enough data-bearing nodes") as raised:
        write(events(3), f"jsonl:{tmp_path}", f"{place}?w=5&wTimeoutMS=100")
    assert "row 1" not in str(raised.value)


def test_users_and_encoded_passwords(place: str, client: Any, tmp_path: Path) -> None:
    """A password from the environment may have any characters."""
    password = "p@ss:w/rd%"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGODB_PASSWORD", password)
        client.admin.command("createUser", "eve", pwd=password, roles=["root"])
        url = place.replace("://", "://eve:${MONGODB_PASSWORD}@") + "?authSource=admin"
        write(events(3), f"jsonl:{tmp_path}", url)
        assert client[place.split("/")[3]].rows.count_documents({}) == 3
        client.admin.command("dropUser", "eve")
        with pytest.raises(OutputError) as raised:
            write(events(3), f"jsonl:{tmp_path}", url)
        assert password not in str(raised.value)


def test_a_server_that_steps_down_is_waited_for(tmp_path: Path) -> None:
    """Errors that pass, of whole bulks and of single documents, are tried again; no row is lost or refused."""
    with MongoServer(options=("--enable-test-commands",)) as server:
        fail = pymongo.MongoClient(f"mongodb://{server.address}").admin
        for data in (
            {"errorCode": 10107},
            {"errorCode": 14031},
            {"closeConnection": True},
            {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},
        ):
            failure = {"failCommands": ["insert", "update"], **data}
            fail.command("configureFailPoint", "failCommand", mode={"times": 2}, data=failure)
            write(events(50), f"jsonl:{tmp_path}", f"mongodb://{server.address}/test/rows?rows=20")
            assert dead_letters(tmp_path).height == 0, data
            assert fail.client.test.rows.count_documents({}) == 50
            fail.command("configureFailPoint", "failCommand", mode="off")
