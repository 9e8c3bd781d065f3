"""Files are written whole or not at all, once, and a repeated run replaces them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import pyarrow as pa
import pytest

from fabric_beam import MapBatches, WriteTo
from fabric_beam.batches import BatchOf, to_batch
from fabric_beam.errors import OutputError, UsageError
from fabric_beam.io.file_sink import _Commit, _Written
from fabric_beam.io.jsonl import JsonLinesWriter
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.testing import check_sink, run

START = datetime(2026, 1, 1, 23, tzinfo=UTC)
EVENTS = pl.DataFrame(
    {
        "timestamp": [START + timedelta(minutes=n) for n in range(120)],
        "body": [f"row {n}" for n in range(120)],
        "source": ["a.log"] * 120,
        "offset": list(range(120)),
    }
).with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


def parquet(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in sorted(folder.glob("**/*.parquet"))])


def json_lines(folder: Path) -> pl.DataFrame:
    tables = [
        pl.read_ndjson(path, schema=EVENTS.schema | {"timestamp": pl.String})
        for path in sorted(folder.glob("**/*.jsonl"))
    ]
    return pl.concat(tables).with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))


@pytest.mark.parametrize(("scheme", "read"), [("parquet", parquet), ("jsonl", json_lines)])
def test_file_sinks_keep_the_rules_of_sinks(tmp_path: Path, scheme: str, read: Callable[[Path], pl.DataFrame]) -> None:
    """Every row once; the same job replaces; another adds."""
    check_sink(f"{scheme}:{tmp_path}", lambda: read(tmp_path), EVENTS)


def test_rows_are_partitioned_by_date(tmp_path: Path) -> None:
    """Rows with an event time lie in folders of their UTC date."""
    run(EVENTS, WriteTo(f"parquet:{tmp_path}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["date=2026-01-01", "date=2026-01-02"]
    dates = parquet(tmp_path / "date=2026-01-02")["timestamp"].dt.date().unique().to_list()
    assert [datetime(2026, 1, 2).date()] == dates


def test_files_hold_no_more_rows_than_asked(tmp_path: Path) -> None:
    """`max_rows` bounds a file, up to the batch that fills it."""
    run([EVENTS[n : n + 10] for n in range(0, 120, 10)], WriteTo(f"parquet:{tmp_path}?max_rows=30"))
    heights = [pl.read_parquet(path).height for path in tmp_path.glob("**/*.parquet")]
    assert max(heights) <= 30
    assert sum(heights) == 120


def test_names_are_deterministic(tmp_path: Path) -> None:
    """Two runs on the same rows give the same files."""
    for folder in ("a", "b"):
        run(EVENTS, WriteTo(f"parquet:{tmp_path / folder}", job="logs"))
    names = [sorted(str(p.relative_to(tmp_path / f)) for p in (tmp_path / f).glob("**/*.parquet")) for f in ("a", "b")]
    assert names[0] == names[1] == ["date=2026-01-01/logs-00000.parquet", "date=2026-01-02/logs-00000.parquet"]


def fail(table: pl.DataFrame) -> pl.DataFrame:
    if table.height:
        raise RuntimeError("boom")
    return table


@pytest.mark.parametrize("runner", ["DirectRunner", DirectRunner()], ids=["Beam's", "ours"])
def test_a_failed_run_leaves_nothing(tmp_path: Path, runner: Any) -> None:
    """When another step fails, no file has its final name, and no temporary one stays."""
    with pytest.raises(RuntimeError, match="boom"), beam.Pipeline(runner) as p:
        batches = p | beam.Create([to_batch(EVENTS)]).with_output_types(BatchOf(to_batch(EVENTS).schema))
        batches | WriteTo(f"parquet:{tmp_path}")
        batches | "Fail" >> MapBatches(fail)
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_removes_what_a_failed_one_has_left(tmp_path: Path) -> None:
    """Temporary files of the same job and suffix go; those of other jobs, which may be running, stay."""
    names = [f".tmp-{name}-0123456789ab" for name in ("a.parquet", "a.jsonl", "a-b.parquet", "b.parquet")]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0").write_text("half a file")
    run(EVENTS, WriteTo(f"parquet:{tmp_path}", job="a"))
    assert sorted(path.name for path in tmp_path.glob(".tmp-*")) == sorted(names[1:])


def test_no_rows_leave_a_file_with_the_schema(tmp_path: Path) -> None:
    """Readers find the columns also when there are no rows."""
    run([EVENTS.clear()], WriteTo(f"parquet:{tmp_path}"))
    assert EVENTS.schema == parquet(tmp_path).schema


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Only the files of the same job are replaced, in this folder and its dates."""
    others = ("notes.txt", "other-00000.parquet", "logs-eu-00000.parquet", "logs-00000.jsonl", "logs-1/x.parquet")
    others += ("metrics/logs-00000.parquet", "date=2026-01-01/logs-eu-00000.parquet")
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("theirs")
    run(EVENTS, WriteTo(f"parquet:{tmp_path}", job="logs"))
    assert [(tmp_path / name).read_text() for name in others] == ["theirs"] * len(others)


@pytest.mark.parametrize("folder", ["a//b", "a/./b/"])
def test_a_folder_has_its_files_replaced_however_it_is_written(tmp_path: Path, folder: str) -> None:
    """What stands there is found again."""
    for events in (EVENTS, EVENTS[:1]):
        run(events, WriteTo(f"parquet:{tmp_path}/{folder}"))
    assert parquet(tmp_path).height == 1


def test_a_folder_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    """A file where the folder should be is an error with the path."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="Cannot write to"):
        WriteTo(f"parquet:{tmp_path / 'out'}/events").sink.prepare()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("parquett:out", "no endpoint scheme 'parquett'.*Did you mean 'parquet'"),
        ("parquet:out?max_row=3", "no option 'max_row'.*Did you mean 'max_rows'"),
        ("parquet:out?max_rows=many", "option max_rows='many' is not int"),
        ("parquet:", "needs a folder"),
        ("parquet:out/*", r"'\*' would make a pattern of it"),
        ("out/events", "has no scheme"),
        ("stdout:x", "takes nothing after it"),
    ],
)
def test_wrong_urls_are_refused(url: str, message: str) -> None:
    """A wrong scheme or option is an error with the nearest right one."""
    with pytest.raises(UsageError, match=message):
        WriteTo(url)


def test_a_commit_that_was_cut_short_can_be_repeated(tmp_path: Path) -> None:
    """A worker that dies between two renames is replaced by one that does the rest."""
    temporary = tmp_path / ".tmp-x"
    temporary.mkdir()
    commit = _Commit(
        "Write",
        str(tmp_path),
        str(temporary),
        "logs",
        "jsonl",
        JsonLinesWriter,
        BatchOf(pa.schema([("body", pa.string())])),
    )
    written = [_Written("", str(n), str(temporary / str(n)), 1) for n in range(3)]
    for n in range(3):
        (temporary / str(n)).write_text(f"{n}\n")
    # The first attempt got as far as this.
    (temporary / "0").rename(tmp_path / "logs-00000.jsonl")
    for _ in range(2):
        assert len(list(commit.process(None, written))) == 3
        assert [(tmp_path / f"logs-{n:05d}.jsonl").read_text() for n in range(3)] == ["0\n", "1\n", "2\n"]
    assert not temporary.exists()
