"""Enrich adds a reference table's columns by key, and says what is wrong with a table before any event is read."""

from pathlib import Path
from typing import Any, Literal

import cloudpickle
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from fabric_beam.kernel import Split
from fabric_beam.testing import collect_with_dead_letters
from transforms.enrich import Enrich

EVENTS = pl.DataFrame({"host.name": ["b", "x", "a", None, "a"], "port": [2, 2, 1, 1, 3]})
CSV = "host,rack,zone\na,007,10\nb,012,\n"


def enrich(table: pl.DataFrame, transform: Enrich) -> Split:
    """Run a transform's kernel, as a Split."""
    result = transform.bind(table.schema)(table)
    return result if isinstance(result, Split) else Split(result, table.clear())


KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
MISS = st.sampled_from(["null", "drop", "reject"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.none() | KEYS, st.none() | st.integers(0, 2)), max_size=30),
    st.dictionaries(st.tuples(KEYS, st.integers(0, 2)), st.none() | st.integers(0, 9), max_size=10),
    MISS,
)
def test_enrich_is_a_lookup_in_a_dict(
    rows: list[tuple[Any, Any]], known: dict[tuple[str, int], int | None], miss: Literal["null", "drop", "reject"]
) -> None:
    """Each event gets the value of its keys; those without one are kept with null, filtered or rejected, in order."""
    schema = {"host.name": pl.String, "port": pl.Int64, "offset": pl.Int64}
    table = pl.DataFrame([(*row, n) for n, row in enumerate(rows)], schema=schema, orient="row")
    lookup = pl.DataFrame(
        [(*key, value) for key, value in known.items()],
        schema={"host": pl.String, "port": pl.Int64, "rack": pl.Int64},
        orient="row",
    )
    result = enrich(table, Enrich(lookup, {"host.name": "host", "port": "port"}, miss=miss))
    hits = [(*row, n, known.get(row)) for n, row in enumerate(rows) if miss == "null" or row in known]
    assert result.kept.rows() == hits
    assert result.kept.columns == ["host.name", "port", "offset", "rack"]
    missed = [(*row, n) for n, row in enumerate(rows) if row not in known] if miss == "reject" else []
    assert result.rejected.select(table.columns).rows() == missed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hosts.csv", "host,rack\na,1\nb,2\n"),
        ("hosts.json", '[{"host": "a", "rack": 1}, {"host": "b", "rack": 2}]'),
        ("hosts.json", '{"host": "a", "rack": 1}\n{"host": "b", "rack": 2}\n'),
        ("hosts.jsonl", '{"host": "a", "rack": 1}\n{"host": "b", "rack": 2}\n'),
        ("hosts.ndjson", '{"host": "a", "rack": 1}\n{"host": "b", "rack": 2}\n'),
        ("hosts.parquet", ""),
    ],
)
def test_tables_are_read_by_their_suffix(name: str, text: str, tmp_path: Path) -> None:
    """CSV, JSON (an array or lines) and Parquet give the same columns and types."""
    path = tmp_path / name
    if text:
        path.write_text(text, encoding="utf-8")
    else:
        pl.DataFrame({"host": ["a", "b"], "rack": [1, 2]}).write_parquet(path)
    kept = enrich(EVENTS, Enrich(path, {"host.name": "host"})).kept
    assert kept.equals(EVENTS.with_columns(pl.Series("rack", [2, None, 1, None, 1])))


def test_values_of_csv_keep_their_writing(tmp_path: Path) -> None:
    """Columns of a CSV file get a type only where that loses nothing: codes with leading zeros stay text."""
    path = tmp_path / "hosts.csv"
    path.write_text("host,code,phone,n,ratio,up,note,empty\na,007,+49 1,-1,1.5,true,x,\nb,12,,2,2,false,1,\n", "utf-8")
    kept = enrich(EVENTS, Enrich(path, {"host.name": "host"})).kept
    assert kept.row(2, named=True) == {
        "host.name": "a", "port": 1, "code": "007", "phone": "+49 1", "n": -1, "ratio": 1.5, "up": True, "note": "x",
        "empty": None,
    }  # fmt: skip


def test_keys_of_csv_are_read_as_the_events_have_them(tmp_path: Path) -> None:
    """The key 007 finds the text 007 among texts, and the number 7 among numbers."""
    path = tmp_path / "codes.csv"
    path.write_text("code,name\n007,agent\n12,dozen\n", encoding="utf-8")
    assert enrich(pl.DataFrame({"code": ["007", "7"]}), Enrich(path, "code")).kept["name"].to_list() == ["agent", None]
    assert enrich(pl.DataFrame({"code": [7, 12]}), Enrich(path, "code")).kept["name"].to_list() == ["agent", "dozen"]


@pytest.mark.parametrize(("have", "given"), [(pl.Int8, pl.Int64), (pl.Int64, pl.Float64), (pl.String, pl.Int64)])
def test_keys_of_another_type_are_converted(have: type[pl.DataType], given: type[pl.DataType]) -> None:
    """A table's keys take the type of the events', where each keeps its meaning."""
    events = pl.DataFrame({"id": [1, 2]}).cast({"id": have})
    table = pl.DataFrame({"id": [2], "name": ["two"]}).cast({"id": given})
    assert enrich(events, Enrich(table, "id")).kept["name"].to_list() == [None, "two"]


def test_columns_and_prefix_choose_what_is_added() -> None:
    """Only the columns asked for are added, under the prefix."""
    table = pl.DataFrame({"host": ["a"], "port": [9], "rack": ["r"]})
    kept = enrich(EVENTS, Enrich(table, {"host.name": "host"}, columns=["port"], prefix="host.")).kept
    assert kept.columns == ["host.name", "port", "host.port"]
    assert kept["host.port"].to_list() == [None, None, 9, None, 9]


def test_no_columns_make_a_list_of_allowed_keys() -> None:
    """With no column to add, a table still tells which events are known."""
    table = pl.DataFrame({"host.name": ["a"], "rack": ["r"]})
    kept = enrich(EVENTS, Enrich(table, "host.name", columns=[], miss="drop")).kept
    assert kept.equals(EVENTS.filter(pl.col("host.name") == "a"))


def test_metadata_are_constant_columns() -> None:
    """Constants are added to every event, with or without a table."""
    constants = {"deployment.environment.name": "production", "run.id": "7"}
    kept = enrich(EVENTS, Enrich(metadata=constants)).kept
    assert kept.equals(EVENTS.with_columns(**{name: pl.lit(value) for name, value in constants.items()}))
    table = pl.DataFrame({"host.name": ["a"], "rack": [1]})
    kept = enrich(EVENTS, Enrich(table, ["host.name"], miss="drop", metadata=constants)).kept
    assert kept.row(0, named=True) == {"host.name": "a", "port": 1, "rack": 1, **constants}


def test_rejection_names_the_keys() -> None:
    """A rejected event's message names the table and each key's value."""
    table = pl.DataFrame({"host.name": ["a"], "port": [1], "rack": ["r"]})
    rejected = enrich(EVENTS, Enrich(table, ["host.name", "port"], miss="reject")).rejected
    assert set(rejected["rejected.rule"]) == {"enrich"}
    assert rejected["rejected.message"].to_list() == [
        "the table has no row for host.name = 'b', port = '2'",
        "the table has no row for host.name = 'x', port = '2'",
        "the table has no row for host.name = null, port = '1'",
        "the table has no row for host.name = 'a', port = '3'",
    ]


def test_no_rows_keep_the_same_columns() -> None:
    """An empty table comes out with the output's schema, and an empty reference table is one without hits."""
    table = pl.DataFrame({"host.name": ["a"], "rack": pl.Series(["r"], dtype=pl.Categorical)})
    for miss in ("null", "drop", "reject"):
        transform = Enrich(table, "host.name", miss=miss, metadata={"env": "p"})
        assert enrich(EVENTS.clear(), transform).kept.schema == enrich(EVENTS, transform).kept.schema
    expected = {"host.name": pl.String, "port": pl.Int64, "rack": pl.String, "env": pl.String}
    assert enrich(EVENTS.clear(), transform).kept.schema == expected
    assert enrich(EVENTS, Enrich(table.clear(), "host.name")).kept["rack"].null_count() == EVENTS.height


BAD: list[tuple[str, dict[str, Any], str]] = [
    (
        "host,rack\na,1\nb,2\na,3\n",
        {"on": {"host.name": "host"}},
        "{path}: the key host = 'a' stands in lines 2 and 4; each may stand once.",
    ),
    ("host,rack\na,1\n,2\n", {"on": {"host.name": "host"}}, "{path}: the key 'host' in line 3 is empty."),
    (
        "port,rack\n1,1\nx,2\n",
        {"on": "port"},
        "{path}: the key 'port' in line 3 is 'x', which is no Int64 as in the events' 'port'.",
    ),
    (
        "host,rack\na,1\n",
        {"on": {"host": "host"}},
        "there is no key column 'host'. Did you mean 'host.name'? Known: host.name, port.",
    ),
    (
        "host,rack\na,1\n",
        {"on": {"host.name": "hots"}},
        "{path}: no column 'hots'. Did you mean 'host'? Known: host, rack.",
    ),
    (
        "host,rack\na,1\n",
        {"on": {"host.name": "host"}, "columns": ["rak"]},
        "{path}: no column 'rak'. Did you mean 'rack'? Known: host, rack.",
    ),
    (
        "host,port\na,1\n",
        {"on": {"host.name": "host"}},
        "the events have a column 'port' already: choose columns or a prefix.",
    ),
    (
        "host,host.name\na,1\n",
        {"on": {"host.name": "host"}},
        "the events have a column 'host.name' already: choose columns or a prefix.",
    ),
    (
        "host,rack\na,1\n",
        {"on": {"host.name": "host"}, "metadata": {"rack": "x"}},
        "there is a column 'rack' already: choose another name in metadata.",
    ),
]


@pytest.mark.parametrize(("text", "options", "message"), BAD)
def test_wrong_table_is_refused(text: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """What is wrong with a table is told with its file, key and lines."""
    path = tmp_path / "hosts.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        enrich(EVENTS, Enrich(path, **options))
    assert str(error.value) == message.format(path=path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("host.csv", None, "there is no such file. Did you mean 'hosts.csv'? Known: hosts.csv."),
        ("hosts.txt", "a", "the kind of a reference table shows in its name, which must end in one of .csv, .json,"),
        ("empty.csv", "", "cannot be read as csv: empty CSV"),
        ("bad.json", '[{"a": 1]', "cannot be read as json: "),
        ("bad.jsonl", '{"a": 1}\n{"a"', "cannot be read as jsonl: "),
        ("bad.parquet", "PAR1", "cannot be read as parquet: "),
    ],
)
def test_unreadable_table_is_refused(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    """A file that is missing, or not what its name says, is refused."""
    (tmp_path / "hosts.csv").write_text(CSV, encoding="utf-8")
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        enrich(EVENTS, Enrich(tmp_path / name, {"host.name": "host"}))
    assert str(error.value).startswith(f"{tmp_path / name}: {message}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"port": ["1"], "x": [1]}, None),
        ({"port": [1.5], "x": [1]}, "the table: the key 'port' in row 1 is 1.5, which is no Int64 as in the events'"),
        ({"port": [[1]], "x": [1]}, "the table: the key column 'port' is List(Int64), and the events' 'port' is Int64"),
        ({"port": [1, 1], "x": [1, 2]}, "the table: the key port = 1 stands in rows 1 and 2; each may stand once."),
    ],
)
def test_wrong_keys_are_refused(table: dict[str, Any], message: str | None) -> None:
    """Keys that the events cannot have are refused; text that is a number is one."""
    transform = Enrich(pl.DataFrame(table), "port")
    if message is None:
        assert enrich(EVENTS, transform).kept["x"].to_list() == [None, None, 1, 1, None]
    else:
        with pytest.raises(UsageError) as error:
            enrich(EVENTS, transform)
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Enrich: give it a table with its key columns, or metadata."),
        (
            {"table": pl.DataFrame({"a": [1]})},
            "Enrich: a table needs key columns (on=…), and key columns need a table.",
        ),
        ({"on": "a"}, "Enrich: a table needs key columns (on=…), and key columns need a table."),
        (
            {"table": pl.DataFrame({"a": [1]}), "on": "a", "miss": "skip"},
            "Enrich: miss='skip' is unknown. Known: drop, null, reject.",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Options that contradict each other are refused at once."""
    with pytest.raises(UsageError) as error:
        Enrich(**options)
    assert str(error.value) == message


def test_enrich_in_a_pipeline(tmp_path: Path) -> None:
    """In a pipeline, the table travels with the kernel, and events without a row become dead letters."""
    path = tmp_path / "hosts.csv"
    path.write_text(CSV, encoding="utf-8")
    transform = Enrich(path, {"host.name": "host"}, miss="reject")
    kept, letters = collect_with_dead_letters(EVENTS, transform)
    assert kept.rows() == [("b", 2, "012", None), ("a", 1, "007", 10), ("a", 3, "007", 10)]
    assert letters["message"].to_list() == [f"{path} has no row for host.name = {key}" for key in ("'x'", "null")]
    kernel = cloudpickle.loads(cloudpickle.dumps(transform.bind(EVENTS.schema)))
    assert kernel(EVENTS).kept.equals(kept)


def test_a_files_name_says_what_becomes_of_misses(tmp_path: Path) -> None:
    """As a store's URL does, before what the call says; a word that is none is refused."""
    path = tmp_path / "hosts.csv"
    path.write_text(CSV, encoding="utf-8")
    kept, letters = collect_with_dead_letters(EVENTS, Enrich(f"{path}?fabric.miss=reject", {"host.name": "host"}))
    assert (kept.height, letters.height) == (3, 2)
    with pytest.raises(UsageError, match="Did you mean 'drop'"):
        Enrich(f"{path}?fabric.miss=drp", {"host.name": "host"})
