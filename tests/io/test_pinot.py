"""`pinot:` without a server: URLs, options, columns, tables, segments, and the rows that are refused."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import WriteTo
from fabric_beam.dead_letters import SCHEMA
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, OutputError, SchemaError, UsageError
from fabric_beam.io.pinot.columns import column_of, unfit, values
from fabric_beam.io.pinot.segments import SegmentStore
from fabric_beam.io.pinot.tables import Table
from fabric_beam.schemes import SINKS

pytest.importorskip("confluent_kafka")

from fabric_beam.io.kafka.librdkafka import library
from fabric_beam.io.pinot.realtime import RealtimeStore

EVENTS = pl.Schema(
    {
        "timestamp": pl.Datetime("us", "UTC"),
        "body": pl.String(),
        "service.name": pl.String(),
        "duration": pl.Float64(),
        "user": pl.Struct({"id": pl.Int64}),
        "source": pl.String(),
        "offset": pl.Int64(),
    }
)
WINDOWS = pl.Schema({"window_start": pl.Datetime("us", "UTC"), "service.name": pl.String(), "count": pl.Int64()})


def endpoint(query: str, path: str = "//localhost:9000/events") -> Endpoint:
    return Endpoint.parse(f"pinot:{path}?{query}", SINKS)


def table(query: str = "", type: str = "OFFLINE", name: str = "events") -> Table:
    return Table.of(endpoint(query), name, type, {})


def segments(query: str, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return dict(SegmentStore(endpoint(query)).segments(rows))


@pytest.mark.parametrize(
    "url",
    [
        "pinot:",
        "pinot://localhost:9000",
        "pinot://localhost:x/events",
        "pinot:///events",
        "pinot://localhost/a.b",
        "pinot://localhost/a/b",
        "pinot://localhost/events?kafka=",
        "pinot://localhost/events?kafka=broker",
        "pinot://localhost/events?kafka=ann:pw@broker:9092",
        "pinot://localhost/events?kafka=broker:9092/not a topic",
        "pinot://localhost/events?layout=nice",
        "pinot://localhost/events?ttl=0",
        "pinot://localhost/events?span=-1",
        "pinot://localhost/events?rows=100",
        "pinot://localhost/events?span=1&kafka=broker:9092",
        "pinot://localhost/events?alter=yes",
        "pinot://localhost/events?layuot=reports",
    ],
)
def test_wrong_urls(url: str) -> None:
    """They are errors when the pipeline is built."""
    with pytest.raises(UsageError):
        WriteTo(url)


def test_what_a_url_says_is_known_in_the_worker() -> None:
    """Stores are sent there as bytes."""
    for url in ("pinot://h/t?kafka=a:1,b:2/logs&partitions=3&stream.x=y&key=a", "pinot://u:p@h/t?span=9&ttl=3"):
        sink: Any = WriteTo(url).sink
        assert isinstance(pickle.loads(pickle.dumps(sink._store)), RealtimeStore | SegmentStore)


def test_passwords_are_not_shown() -> None:
    """Neither in the label of the step nor in the message of an error."""
    assert "hunter2" not in WriteTo("pinot://ann:hunter2@h/t").default_label()
    with pytest.raises(UsageError) as raised:
        WriteTo("pinot://ann:hunter2@h/")
    assert "hunter2" not in str(raised.value)


def test_without_the_client_of_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named when the pipeline is built; segments do without it."""
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fabric-beam\[kafka\]"'):
        WriteTo("pinot://localhost/events?kafka=broker:9092")
    WriteTo("pinot://localhost/events")


def test_names_that_a_table_cannot_have() -> None:
    """A type that Pinot lacks, a column of ours, and one that a query would take for another."""
    for schema, said in (
        ({"a": pl.Object}, "'a'"),
        ({"a": pl.List(pl.Binary)}, "'a'"),
        ({"a": pl.Struct({"b": pl.Binary})}, "'a'"),
        ({"_id": pl.String}, "_id"),
        ({"$docId": pl.String}, "docId"),
        ({"Events.name": pl.String}, "Events.name"),
    ):
        with pytest.raises(OutputError, match=said):
            table().columns(pl.Schema(schema))


def test_columns_that_options_name() -> None:
    """They must be there."""
    with pytest.raises(SchemaError, match=r"service\.name"):
        table("dimensions=service.nam").columns(EVENTS)
    with pytest.raises(SchemaError, match="service"):
        RealtimeStore(endpoint("kafka=b:1&key=service.nam")).check(EVENTS)


@pytest.mark.parametrize(
    ("dtype", "value", "type", "stored"),
    [
        (pl.Int16(), -5, "INT", -5),
        (pl.UInt32(), 2**32 - 1, "LONG", 2**32 - 1),
        (pl.UInt64(), 2**63 - 1, "LONG", 2**63 - 1),
        (pl.Float32(), 0.5, "FLOAT", 0.5),
        (pl.Float64(), 0.1, "DOUBLE", 0.1),
        (pl.Decimal(10, 2), Decimal("1.50"), "BIG_DECIMAL", "1.50"),
        (pl.Boolean(), True, "BOOLEAN", True),
        (pl.String(), "π", "STRING", "π"),
        (pl.Categorical(), "a", "STRING", "a"),
        (pl.Enum(["a"]), "a", "STRING", "a"),
        (pl.Null(), None, "STRING", None),
        (pl.Binary(), b"\xff\0", "BYTES", "ff00"),
        (pl.Datetime("us", "UTC"), datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC), "LONG", 1000),
        (pl.Date(), date(2026, 1, 31), "STRING", "2026-01-31"),
        (pl.Time(), time(1, 2, 3), "STRING", "01:02:03.000000"),
        (pl.Duration("ms"), timedelta(seconds=1), "LONG", 1_000_000),
        (pl.List(pl.Float64()), [1.0, None, float("nan")], "DOUBLE", [1.0]),
        (pl.List(pl.String()), ["a", None], "STRING", ["a"]),
        (pl.List(pl.Boolean()), [True, None], "JSON", "[true,null]"),
        (pl.List(pl.List(pl.Int64())), [[1], []], "JSON", "[[1],[]]"),
        (pl.Array(pl.Int64(), 2), [1, 2], "JSON", "[1,2]"),
        (pl.Struct({"a.b": pl.Int64()}), {"a.b": 1}, "JSON", '{"a.b":1}'),
    ],
)
def test_types(dtype: pl.DataType, value: Any, type: str, stored: Any) -> None:
    """Every value is one that Pinot reads from JSON; nulls stay nulls."""
    column = column_of("x", dtype)
    assert column is not None and column.type == type
    rows = pl.DataFrame({"x": pl.Series([value, None], dtype=dtype)})
    assert values(rows)["x"].to_list() == [stored, None]


def test_a_schema() -> None:
    """Times, measures and dimensions; texts are not cut after 512 characters."""
    made = table("", "REALTIME").schema(EVENTS)
    assert [spec["name"] for spec in made["dateTimeFieldSpecs"]] == ["timestamp", "_written"]
    assert [spec["name"] for spec in made["metricFieldSpecs"]] == ["duration"]
    assert {spec["name"]: spec["dataType"] for spec in made["dimensionFieldSpecs"]} == {
        **{"body": "STRING", "service.name": "STRING", "user": "JSON", "source": "STRING", "offset": "LONG"},
        "_id": "STRING",
    }
    assert made["primaryKeyColumns"] == ["_id"]
    assert made["dimensionFieldSpecs"][0]["maxLength"] == 2**31 - 1


@pytest.mark.parametrize(
    ("layout", "indexes"),
    [
        (
            "analytics",
            {
                "invertedIndexColumns": ["service.name"],
                "rangeIndexColumns": ["timestamp", "duration", "offset"],
                "bloomFilterColumns": ["source"],
                "jsonIndexColumns": ["user"],
            },
        ),
        ("dashboards", {"invertedIndexColumns": ["service.name"], "rangeIndexColumns": ["timestamp"]}),
        ("reports", {"sortedColumn": ["service.name"], "invertedIndexColumns": [], "bloomFilterColumns": ["source"]}),
    ],
)
def test_layouts(layout: str, indexes: dict[str, Any]) -> None:
    """Each has its indexes; a table of the layout's name has it without being told."""
    for made in (table(f"layout={layout}"), table(name=layout)):
        config = made.config(EVENTS)
        assert indexes.items() <= config["tableIndexConfig"].items()
        assert bool(config["fieldConfigList"]) == (layout == "analytics")
        assert ("starTreeIndexConfigs" in config["tableIndexConfig"]) == (layout == "dashboards")


def test_star_trees_sum_up_by_window() -> None:
    """Over what queries group by; upserts have none, because what was summed up could not be taken out again."""
    [tree] = table("layout=dashboards").config(WINDOWS)["tableIndexConfig"]["starTreeIndexConfigs"]
    assert tree["dimensionsSplitOrder"] == ["window_start", "service.name"]
    assert tree["functionColumnPairs"] == ["COUNT__*", "SUM__count", "MIN__count", "MAX__count"]
    config = table("layout=dashboards&ttl=30", "REALTIME").config(WINDOWS)
    assert "starTreeIndexConfigs" not in config["tableIndexConfig"]
    assert config["segmentsConfig"]["retentionTimeValue"] == "30"


def test_a_table_fed_from_kafka_has_a_time() -> None:
    """The rows' own, or else that of their writing, as for dead letters."""
    for schema, name in ((EVENTS, "timestamp"), (WINDOWS, "window_start"), (SCHEMA, "_written")):
        assert table("", "REALTIME").config(schema)["segmentsConfig"]["timeColumnName"] == name
    assert "timeColumnName" not in table().config(SCHEMA)["segmentsConfig"]


def test_secrets_of_the_stream_are_filled_in_for_the_controller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers, labels and errors have the variable's name; one that is not set is said at once."""
    login = 'a.PlainLoginModule required username="ann" password="${FABRIC_BEAM_TEST_PASSWORD}";'
    url = f"pinot://h/t?kafka=b:1&stream.sasl.jaas.config={login}"
    with pytest.raises(UsageError, match="FABRIC_BEAM_TEST_PASSWORD, which is not set"):
        WriteTo(url)
    monkeypatch.setenv("FABRIC_BEAM_TEST_PASSWORD", "hunter2")
    sink: Any = WriteTo(url).sink
    store = sink._store
    streams = store._with_secrets().config(EVENTS)["tableIndexConfig"]["streamConfigs"]
    assert streams["sasl.jaas.config"].endswith('password="hunter2";')
    assert b"hunter2" not in pickle.dumps(sink)
    assert sink._endpoint.clean("wrong password hunter2") == "wrong password ***"
    assert "hunter2" not in WriteTo(url.replace("${FABRIC_BEAM_TEST_PASSWORD}", "hunter2")).default_label()


def test_rows_that_pinot_would_alter_are_refused() -> None:
    """It cuts texts at a NUL, and has no place for a row without a time or of a time that segments cannot have."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {
            "timestamp": [start, None, start, start, start, datetime(1960, 1, 1, tzinfo=UTC), start],
            "body": ["a", "b", "c\0", None, "e", "f", "g"],
            "tags": [["a"], [], None, ["x", "\0"], [None], [], []],
            "n": pl.Series([1, 2, 3, 4, 2**63, 5, 6], dtype=pl.UInt64),
        }
    )
    kept, refused = unfit(rows)
    assert kept["body"].to_list() == ["a", "g"]
    assert refused["n"].to_list() == [2, 3, 4, 2**63, 5]
    assert [message.split(" ")[0] for message in refused["rejected.message"]] == [
        *("timestamp", "body", "tags", "n", "timestamp")
    ]
    assert unfit(rows.clear())[1].height == 0


@given(
    st.lists(st.tuples(st.sampled_from(["a.log", "b.log", None]), st.integers(0, 100)), unique=True, min_size=1),
    st.integers(1, 40),
    st.integers(1, 10),
)
def test_a_row_is_always_in_the_same_segment(rows: list[tuple[str | None, int]], span: int, size: int) -> None:
    """In whatever batches it comes, and whatever comes beside it."""
    schema = {"source": pl.String, "offset": pl.Int64}
    whole = pl.DataFrame(rows, schema=schema, orient="row")
    together = segments(f"span={span}", whole)
    apart: dict[str, list[pl.DataFrame]] = {}
    for batch in whole.iter_slices(size):
        for name, part in segments(f"span={span}", batch).items():
            apart.setdefault(name, []).append(part)
    assert {name: pl.concat(parts).rows() for name, parts in apart.items()} == {
        name: part.rows() for name, part in together.items()
    }
    places = {(source, offset // span if source else None) for source, offset in rows}
    assert len(together) == len(places)


def test_segments_of_rows_from_nowhere() -> None:
    """They go by job and day."""
    starts = [datetime(2026, 1, day, hour, tzinfo=UTC) for day, hour in ((1, 0), (1, 23), (2, 0))]
    windows = pl.DataFrame({"window_start": starts, "count": [1, 2, 3]})
    first = segments("job=j1", windows)
    assert [part["count"].to_list() for part in first.values()] == [[1, 2], [3]]
    assert all(name.startswith("j1-2026-01-0") for name in first)
    assert not set(first) & set(segments("job=j2", windows))
