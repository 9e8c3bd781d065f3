"""One run of the logs pipeline from Kafka into every store there is: the same rows in all of them."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fabric_beam import Read
from fabric_beam.testing import read_all
from fabric_beam.testing.servers.process import free_port
from tests.integration.logs_command import ROOT, generate, run, tables
from tests.integration.store_suite import write
from tests.integration.test_cassandra import session

redis = pytest.importorskip("redis")
pinotdb = pytest.importorskip("pinotdb")
LINES = 20_000
# Six servers are started for it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def raw(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A topic with access-log lines, malformed ones among them."""
    folder = generate(tmp_path_factory.mktemp("demo"), LINES, seed=11)
    lines = [line for path in sorted(folder.rglob("*.log")) for line in path.read_bytes().splitlines()]
    url = f"kafka://{kafka.address}/raw"
    table = pl.DataFrame({"body": [line.decode(errors="replace") for line in lines]})
    write(table, f"jsonl:{tmp_path_factory.mktemp('dead')}", f"{url}?value=body&partitions=2")
    return url


def test_every_store_holds_the_same_rows(
    raw: str, kafka: Any, redis_server: Any, mongodb: Any, cassandra: Any, pinot: Any, tmp_path: Path
) -> None:
    """Parquet, MongoDB, Cassandra, Pinot, Redis and Kafka, in one run; a second run adds nothing but messages."""
    with session(cassandra, "together"):
        stores = {
            "mongodb": f"mongodb://{mongodb.address}/together/{{dataset}}",
            "cassandra": cassandra.url("together/{dataset}"),
            "redis": f"redis://{redis_server.address}/1?prefix={{dataset}}",
            "pinot": f"pinot://admin:secret@{pinot.address}/{{dataset}}?kafka={kafka.address}/pinot-{{dataset}}",
        }
        arguments = [
            f"--input={raw}",
            *(f"--sink=*={url}" for url in stores.values()),
            f"--sink=events=pinot://admin:secret@{pinot.address}/history",
            f"--sink=events=kafka://{kafka.address}/events?partitions=2",
            f"--sink=dead_letters=kafka://{kafka.address}/dead?partitions=1",
        ]
        for _ in range(2):
            code, printed = run(tmp_path / "out", *arguments)
            assert code == 0, printed
        in_files = tables(tmp_path / "out")
        assert in_files["events"].height + in_files["dead_letters"].height == LINES
        assert all(table.height for table in in_files.values())

        account = json.loads((tmp_path / "out" / "ledger.json").read_text())
        for dataset, sinks in {"events": 7, "metrics": 5, "alerts": 5, "dead_letters": 6}.items():
            assert list(account["written"][dataset].values()) == [in_files[dataset].height] * sinks

        for name, url in stores.items():
            for dataset, table in in_files.items():
                place = url.format(dataset=dataset)
                found = _in_pinot(pinot, dataset, table) if name == "pinot" else read_all(Read(_read_back(place)))
                _assert_same(found, table, f"{dataset} in {name}")
        _assert_same(_in_pinot(pinot, "history", in_files["events"]), in_files["events"], "events in Pinot's segments")

    identities = set(in_files["events"].select(pl.format("{}:{}", "source", "offset")).to_series())
    messages = read_all(Read(f"kafka://{kafka.address}/events"))
    sent = messages.select(pl.col("headers").list.eval(pl.element().struct.field("value")).list.first())
    assert messages.height == 2 * len(identities)
    assert set(sent.to_series()) == identities
    assert read_all(Read(f"kafka://{kafka.address}/dead"))["body"].n_unique() <= in_files["dead_letters"].height


def _read_back(url: str) -> str:
    """Rows of Redis are found by their keys."""
    return url.replace("?prefix=", "?match=") + ":*" if "?prefix=" in url else url


def _in_pinot(pinot: Any, name: str, table: pl.DataFrame) -> pl.DataFrame:
    """A table of Pinot, once it has as many rows as another."""
    until = time.monotonic() + 180
    while True:
        rows: list[Any] = []
        # What is not loaded yet cannot be asked.
        with contextlib.suppress(pinotdb.exceptions.DatabaseError, httpx.HTTPError):
            rows, columns = _asked(pinot, f"SET enableNullHandling = true; SELECT * FROM {name} LIMIT 1000000")
        assert len(rows) >= table.height or time.monotonic() < until, f"{len(rows)} of {table.height} rows in {name}"
        if len(rows) >= table.height:
            found = pl.DataFrame(rows, columns, orient="row", infer_schema_length=None)
            times = [name for name, dtype in table.schema.items() if dtype.is_temporal()]
            return found.with_columns(pl.col(times).cast(pl.Datetime("ms", "UTC")))
        time.sleep(0.2)


def _asked(pinot: Any, sql: str) -> tuple[list[Any], list[str]]:
    connection = pinotdb.connect(host="127.0.0.1", port=pinot.broker, path="/query/sql", scheme="http")
    cursor = connection.cursor()
    cursor.execute(sql)
    return cursor.fetchall(), [column[0] for column in cursor.description or []]


def _assert_same(found: pl.DataFrame, expected: pl.DataFrame, what: str) -> None:
    """Every row once, with the same values, in the types and to the millisecond that the store has."""
    columns = [column for column in expected.get_columns() if column.null_count() < len(column)]
    lacking = {column.name for column in columns} - set(found.columns)
    assert not lacking, f"{what}: {lacking} are not there"
    one, other = (
        pl.DataFrame([_plain(table[column.name], column.dtype) for column in columns]) for table in (found, expected)
    )
    assert one.height == other.height, f"{what}: {one.height} rows of {other.height}"
    assert_frame_equal(one.sort(one.columns), other.sort(one.columns))


def _plain(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype.is_nested():
        return pl.Series(column.name, [json.dumps(_parsed(value)) for value in column.to_list()])
    column = column.cast(dtype)
    return column.dt.cast_time_unit("ms") if dtype.is_temporal() else column


def _parsed(value: Any) -> Any:
    """A nested value, whatever of it the store holds as JSON."""
    match value:
        case list():
            return [_parsed(item) for item in value]
        case dict():
            return {name: _parsed(item) for name, item in value.items()}
        case str() if value[:1] in ("[", "{"):
            return _parsed(json.loads(value))
    return value


def test_a_sink_that_is_down_is_replayed_later(raw: str, redis_server: Any, tmp_path: Path) -> None:
    """Its rows are dead letters of a balanced run; `pipelines.replay` brings them to the store once it is there."""
    down = f"redis://127.0.0.1:{free_port()}/2?required=false&timeout=1&call_timeout=1"
    code, printed = run(tmp_path / "out", f"--input={raw}", f"--sink=events={down}")
    assert code == 0, printed
    account = json.loads((tmp_path / "out" / "ledger.json").read_text())
    events = sum(pl.read_parquet(path).height for path in (tmp_path / "out" / "events").rglob("*.parquet"))
    assert sorted(account["written"]["events"].values()) == [0, events]

    up = f"--sink=redis://{redis_server.address}/2?prefix=events"
    code, printed = run_replay(tmp_path / "out" / "ledger.json", up)
    assert code == 0, printed
    with redis.Redis(port=redis_server.port, db=2, decode_responses=True) as client:
        assert sum(1 for _ in client.scan_iter("events:*", count=10_000)) == events
    assert json.loads((tmp_path / "out" / "replay" / "ledger.json").read_text())["balanced"]


def run_replay(ledger: Path, *arguments: str) -> tuple[int, str]:
    """Run `pipelines.replay`."""
    import subprocess
    import sys

    command = [sys.executable, "-W", "ignore", "-m", "pipelines.replay", f"--ledger={ledger}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr
