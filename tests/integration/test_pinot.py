"""`pinot:` on a real server, fed by a real Kafka and segment by segment."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import httpx
import polars as pl
import pytest
import requests

from fabric_beam.dead_letters import dead_letters as of_rejected
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError
from fabric_beam.io.pinot.segments import SegmentStore
from fabric_beam.kernel import reject
from fabric_beam.runners.spark import SparkRunner
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.kafka import KafkaServer
from fabric_beam.testing.servers.pinot import PinotServer
from fabric_beam.testing.servers.process import free_port
from tests.integration.store_suite import BATCH, ROWS, DiesOnce, StoreSuite, dead_letters, events, write

pinotdb = pytest.importorskip("pinotdb")
pytest.importorskip("confluent_kafka")

from fabric_beam.io.pinot.realtime import RealtimeStore  # noqa: E402

ADMIN = ("admin", "secret")


class Table:
    """A table's name, and what is in it."""

    def __init__(self, pinot: PinotServer, kafka: KafkaServer | None = None, name: str = "") -> None:
        self.pinot, self.kafka = pinot, kafka
        self.name = name or f"events_{uuid.uuid4().hex[:12]}"

    def url(self, **options: Any) -> str:
        if self.kafka is not None:
            options = {"kafka": self.kafka.address, "partitions": 2, **options}
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"pinot://admin:secret@{self.pinot.address}/{self.name}?{query}"

    def store(self, **options: Any) -> Any:
        """A connected store."""
        endpoint = Endpoint.parse(self.url(**options), SINKS)
        store = SegmentStore(endpoint) if self.kafka is None else RealtimeStore(endpoint)
        store.connect(60)
        return store

    def add(self, table: pl.DataFrame, **options: Any) -> pl.DataFrame | None:
        """Make the table, and write rows to it; returns those that it refused."""
        store = self.store(**options)
        store.check(table.schema)
        store.ensure(table.schema)
        refused: pl.DataFrame | None = store.write(table)
        store.close()
        return refused

    def query(self, sql: str) -> list[Any]:
        connection = pinotdb.connect(host="127.0.0.1", port=self.pinot.broker, path="/query/sql", scheme="http")
        cursor = connection.cursor()
        cursor.execute(sql)
        return list(cursor.fetchall())

    def count(self) -> int:
        try:
            return int(self.query(f"SELECT COUNT(*) FROM {self.name}")[0][0])
        except (pinotdb.exceptions.DatabaseError, httpx.HTTPError, IndexError):
            # A table without segments, and one whose server is not there or has just come back, cannot be asked.
            return 0

    def rows(self, columns: list[str], order: str = "offset") -> list[Any]:
        names = ", ".join(f'"{name}"' for name in columns)
        return self.query(f'SELECT {names} FROM {self.name} ORDER BY "{order}" LIMIT 100000')

    def events(self) -> pl.DataFrame:
        empty = events(1).clear()
        table = pl.DataFrame(self.rows(empty.columns) if self.count() else [], schema=empty.columns, orient="row")
        return table.with_columns(pl.col("timestamp").cast(pl.Datetime("ms", "UTC"))).cast(dict(empty.schema))

    def ask(self, path: str) -> Any:
        return requests.get(f"http://{self.pinot.address}/{path}", auth=ADMIN, timeout=60).json()

    def segments(self) -> list[str]:
        return sorted(name for types in self.ask(f"segments/{self.name}") for names in types.values() for name in names)

    def is_loaded(self) -> bool:
        """Whether queries see every segment, at least one."""
        try:
            seen = self.query(f'SELECT "$segmentName", COUNT(*) FROM {self.name} GROUP BY "$segmentName" LIMIT 1000')
        except (pinotdb.exceptions.DatabaseError, httpx.HTTPError):
            return False
        return bool(seen) and sorted(name for name, _ in seen) == self.segments()

    def drop(self) -> None:
        for path in (f"tables/{self.name}", f"schemas/{self.name}"):
            requests.delete(f"http://{self.pinot.address}/{path}", auth=ADMIN, timeout=60)


def eventually(check: Callable[[], Any], expected: Any) -> None:
    """Servers load a segment, or read a message, a moment after it was taken; until then a query may fail."""
    until = time.monotonic() + 180
    while (found := _tried(check)) != expected and time.monotonic() < until:
        time.sleep(0.05)
    assert found == expected


def _tried(check: Callable[[], Any]) -> Any:
    try:
        return check()
    except (pinotdb.exceptions.DatabaseError, httpx.HTTPError) as error:
        return error


@pytest.fixture
def server(pinot: PinotServer) -> PinotServer:
    return pinot


@pytest.fixture
def offline(pinot: PinotServer) -> Iterator[Table]:
    table = Table(pinot)
    yield table
    table.drop()


@pytest.fixture
def realtime(pinot: PinotServer, kafka: KafkaServer) -> Iterator[Table]:
    table = Table(pinot, kafka)
    yield table
    table.drop()


class TestPinotSegments(StoreSuite):
    """The suite of every store, without Kafka: ten segments of two thousand rows, written once all rows have come."""

    BEFORE: ClassVar[int] = ROWS // BATCH

    def clear(self) -> None:
        self.table = Table(self.server)  # type: ignore[arg-type]

    def url(self, **options: Any) -> str:
        options.pop("rows", None)
        # A segment takes longer than a few rows do.
        options["call_timeout"] = max(5, options.get("call_timeout", 15))
        return self.table.url(span=2000, **options)

    def read(self) -> pl.DataFrame:
        # Servers load what was taken a moment later, and all that there is once they have come back.
        before, found = events(0), self.table.events()
        until = time.monotonic() + 180
        while (not found.equals(before) or not self.table.is_loaded()) and time.monotonic() < until:
            time.sleep(1.5)
            before, found = found, self.table.events()
        return found

    def count(self) -> int:
        return self.table.count()

    def with_refused(self, table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(body=pl.when(pl.col("offset") % 100 == 0).then(pl.lit("a\0b")).otherwise("body"))

    def wrong_credentials(self) -> str:
        return f"pinot://admin:hunter2@{self.server.address}/events"

    def elsewhere(self, port: int) -> str:
        return f"pinot://127.0.0.1:{port}/events"


def test_a_repeated_run_replaces_by_way_of_kafka(realtime: Table, tmp_path: Path) -> None:
    """Every row once, with the values of the last run, also where its time is earlier now."""
    before = events(5000).with_columns(pl.col("timestamp") + pl.duration(hours=1), body=pl.lit("before"))
    for table in (before, events(5000)):
        counters = write(table, f"jsonl:{tmp_path}", realtime.url(rows=300))
        assert [n for name, n in counters.items() if name.startswith("written:") and n] == [5000]
        eventually(lambda wanted=table: realtime.events().equals(wanted), True)


def test_a_worker_killed_by_way_of_kafka(realtime: Table, tmp_path: Path, spark: Any) -> None:
    """What it had written and is written again replaces itself."""
    mark = tmp_path / "died"
    url = realtime.url(rows=100)
    write(events(ROWS), f"jsonl:{tmp_path}", url, runner=SparkRunner(), before=DiesOnce(str(mark), after=5))
    assert mark.exists()
    eventually(lambda: realtime.events().equals(events(ROWS)), True)


def test_pinot_stands_still_while_kafka_takes_rows(realtime: Table, pinot: PinotServer, tmp_path: Path) -> None:
    """A run does not wait for it; the rows are there when it goes on."""
    realtime.add(events(1))
    eventually(realtime.count, 1)
    store = realtime.store()
    pinot.freeze()
    try:
        assert store.write(events(2000)) is None
    finally:
        pinot.thaw()
    store.close()
    eventually(lambda: realtime.events().equals(events(2000)), True)


def test_pinot_is_killed_and_restarted(realtime: Table, offline: Table, pinot: PinotServer) -> None:
    """Tables and segments are there again; what was given to Kafka meanwhile is, too."""
    offline.add(events(500))
    realtime.add(events(100))
    eventually(realtime.count, 100)
    store = realtime.store()
    pinot.kill()
    assert store.write(events(2000)) is None
    store.close()
    pinot.restart()
    eventually(lambda: realtime.events().equals(events(2000)), True)
    eventually(lambda: offline.events().equals(events(500)), True)


def test_secrets_are_filled_in_for_pinot(realtime: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's settings for Kafka have the value of a variable of the environment."""
    monkeypatch.setenv("FABRIC_BEAM_TEST_PASSWORD", "hunter2")
    realtime.add(events(1), **{"stream.stream.kafka.consumer.prop.client.id": "${FABRIC_BEAM_TEST_PASSWORD}"})
    settings = realtime.ask(f"tables/{realtime.name}")["REALTIME"]["tableIndexConfig"]["streamConfigs"]
    assert settings["stream.kafka.consumer.prop.client.id"] == "hunter2"
    eventually(realtime.count, 1)


@pytest.mark.parametrize("way", ["offline", "realtime"])
def test_dead_letters(way: str, request: pytest.FixtureRequest) -> None:
    """They have no time: by way of Kafka that of their writing is the table's; two of one row are both there."""
    table: Table = request.getfixturevalue(way)
    rejected = reject(pl.DataFrame({"body": ["x"], "source": ["a.log"], "offset": [7]}), "rule", "why")
    letters = pl.concat(of_rejected(rejected, step) for step in ("Parse", "Write"))
    assert table.add(letters, ttl=86_400) is None
    assert table.add(letters, ttl=86_400) is None
    eventually(lambda: [row[0] for row in table.rows(["step"], "step")], ["Parse", "Write"])


def test_refused_rows_by_way_of_kafka(realtime: Table, tmp_path: Path) -> None:
    """Pinot would drop or cut them without a word: they are dead letters, and the others are there."""
    table = events(300).with_columns(
        body=pl.when(pl.col("offset") == 7).then(pl.lit("a\0b")).otherwise("body"),
        timestamp=pl.when(pl.col("offset") != 9).then("timestamp"),
    )
    write(table, f"jsonl:{tmp_path}", realtime.url())
    letters = dead_letters(tmp_path).sort("offset")
    assert letters["offset"].to_list() == [7, 9]
    assert [message.split(" ")[0] for message in letters["message"]] == ["body", "timestamp"]
    eventually(realtime.count, 298)


TYPES = pl.DataFrame(
    {
        "timestamp": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
        "service.name": ["π 😀 \r\n\"'", None],
        "body": ["é" * 100_000, ""],
        "n": [-(2**63) + 1, None],
        "rate": [0.1, None],
        "small": pl.Series([1.5, None], dtype=pl.Float32),
        "ok": [True, None],
        "money": [Decimal("1.50"), None],
        "raw": [b"\xff\0", None],
        "day": [date(2026, 1, 31), None],
        "seen": [datetime(1960, 1, 1, tzinfo=UTC), None],
        "took": [timedelta(seconds=1), None],
        "tags": [["a", "b"], None],
        "counts": [[1, 2], []],
        "user": [{"id": 7, "roles": ["x"]}, None],
        "nothing": [None, None],
        "source": ["a.log", "a.log"],
        "offset": [0, 1],
    }
)


@pytest.mark.parametrize("way", ["offline", "realtime"])
@pytest.mark.parametrize("layout", ["analytics", "dashboards", "reports"])
def test_types_and_layouts(way: str, layout: str, request: pytest.FixtureRequest) -> None:
    """Every type is read back; nulls are known as such; dotted names are quoted; the layouts' indexes are taken."""
    table: Table = request.getfixturevalue(way)
    assert table.add(TYPES, layout=layout, ttl=630_000_000) is None
    eventually(table.count, 2)
    names = [name for name in TYPES.columns if name not in ("nothing", "body", "timestamp")]
    assert list(table.rows(names)[0]) == [
        *("π 😀 \r\n\"'", -(2**63) + 1, 0.1, 1.5, True, "1.5", "ff00", "2026-01-31", -315_619_200_000, 1_000_000),
        *(["a", "b"], [1, 2], {"id": 7, "roles": ["x"]}, "a.log", 0),
    ]
    for name in TYPES.columns:
        absent = table.query(f'SELECT COUNT(*) FROM {table.name} WHERE "{name}" IS NULL')[0][0]
        expected = {"nothing": 2}.get(name, 1 if TYPES[name][1] is None or name == "counts" else 0)
        assert absent == expected, name
    assert table.query(f'SELECT LENGTH(body) FROM {table.name} WHERE "offset" = 0')[0][0] == 100_000
    sums = table.query(f'SELECT "service.name", COUNT(*), SUM(rate) FROM {table.name} GROUP BY "service.name" LIMIT 9')
    assert sorted(sum[1] for sum in sums) == [1, 1]
    if layout != "dashboards":
        found = table.query(f'SELECT COUNT(*) FROM {table.name} WHERE JSON_MATCH("user", \'"$.id" = 7\')')
        assert found[0][0] == 1


def test_text_is_searched(offline: Table) -> None:
    """By words of the body, in the layout `analytics`."""
    offline.add(events(300))
    eventually(offline.count, 300)
    sql = f'SELECT "offset" FROM {offline.name} WHERE TEXT_MATCH(body, \'"row 17"\')'
    assert [row[0] for row in offline.query(sql)] == [17]


def test_segments_are_of_sources_and_spans(offline: Table, tmp_path: Path) -> None:
    """A run over another file adds; one over the same file replaces its segments alone."""
    first, other = events(300), events(100).with_columns(source=pl.lit("b.log"))
    url = offline.url(span=100)
    write(pl.concat([first, other]), f"jsonl:{tmp_path}", url)
    assert len(offline.segments()) == 4
    write(other.head(50), f"jsonl:{tmp_path}", url)
    assert len(offline.segments()) == 4
    eventually(offline.count, 350)


def test_a_segment_that_no_server_was_given_is_made_anew(offline: Table, tmp_path: Path) -> None:
    """A controller that is killed between knowing a segment and giving it to a server leaves it so."""
    table = events(1000)
    offline.add(table)
    eventually(offline.count, 1000)
    path = f"/fabric-beam/IDEALSTATES/{offline.name}_OFFLINE"
    ideal = offline.ask(f"zk/get?path={path}")
    ideal["mapFields"] = {}
    about = {"path": path, "expectedVersion": -1, "accessOption": 1}
    answer = requests.put(f"http://{offline.pinot.address}/zk/put", params=about, json=ideal, auth=ADMIN, timeout=60)
    answer.raise_for_status()
    eventually(offline.count, 0)
    write(table, f"jsonl:{tmp_path}", offline.url())
    eventually(offline.count, 1000)


def test_aggregates_replace_those_of_their_day(offline: Table, tmp_path: Path) -> None:
    """A run with the same job replaces what it wrote; one with another adds."""
    starts = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
    windows = pl.DataFrame({"window_start": starts, "count": [1, 2]})
    for job in ("one", "one", "two"):
        write(windows, f"jsonl:{tmp_path}", offline.url(layout="dashboards", job=job))
    assert len(offline.segments()) == 4
    eventually(offline.count, 4)
    write(windows.head(0), f"jsonl:{tmp_path}", offline.url(job="one"))
    assert offline.count() == 4


@pytest.mark.parametrize("way", ["offline", "realtime"])
def test_a_table_that_is_there(way: str, request: pytest.FixtureRequest) -> None:
    """It is used if its columns are of these types; missing ones are added if that is asked for."""
    table: Table = request.getfixturevalue(way)
    table.add(events(10))
    table.add(events(10).drop("body"))
    with pytest.raises(OutputError, match=r"'body' of STRING; the rows' is DOUBLE"):
        table.add(events(10).with_columns(body=pl.lit(0.5)))
    wider = events(10).with_columns(pl.lit("x").alias("host.name"))
    with pytest.raises(OutputError, match=r"'host\.name'.*alter=true"):
        table.add(wider)
    assert table.add(wider, alter="true") is None
    eventually(lambda: [row[0] for row in table.rows(["host.name"])], ["x"] * 10)


def test_a_table_of_another_kind(offline: Table, realtime: Table, kafka: KafkaServer) -> None:
    """Rows that replace each other do not go into a table that would keep both, nor those of one topic for another."""
    offline.add(events(10))
    with pytest.raises(OutputError, match="primary key"):
        Table(offline.pinot, kafka, offline.name).add(events(10))
    realtime.add(events(10))
    with pytest.raises(OutputError, match="is fed from the topic"):
        realtime.add(events(10), kafka=f"{kafka.address}/another")


def test_the_controllers_reason(offline: Table) -> None:
    """What it refuses ends the run in its words."""
    with pytest.raises(OutputError, match=r"400: .*space"):
        offline.add(events(1).with_columns(pl.lit(1).alias("a b")))


def test_nobody_listening_by_way_of_kafka(realtime: Table, tmp_path: Path) -> None:
    """A controller, or a broker of Kafka, that is not there is said before the run."""
    port = free_port()
    for url in (
        f"pinot://127.0.0.1:{port}/t?kafka={realtime.kafka.address}&call_timeout=2",  # type: ignore[union-attr]
        realtime.url(kafka=f"127.0.0.1:{port}", call_timeout=2),
    ):
        with pytest.raises(OutputError, match=str(port)):
            write(events(1), f"jsonl:{tmp_path}", url)
