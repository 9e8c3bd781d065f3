"""Syslog lines for tests: a table of lines, what the kernel says of one, and that none is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from fabric_beam.kernel import Split
from transforms.formats.syslog import Syslog

OBSERVED = datetime(2015, 6, 1, tzinfo=UTC)
COLUMNS = {
    "timestamp": pl.Datetime("us", "UTC"),
    "severity_number": pl.Int32,
    "severity_text": pl.String,
    "host.name": pl.String,
    "service.name": pl.String,
    "process.pid": pl.Int64,
    "syslog.facility.code": pl.Int32,
    "syslog.severity.code": pl.Int32,
    "syslog.msg.id": pl.String,
    "syslog.structured_data": pl.String,
    "body": pl.String,
    "log.record.original": pl.String,
}


def table(lines: list[str | None], observed: datetime | None = OBSERVED) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "body": pl.Series(lines, dtype=pl.String),
            "source": pl.Series(["file"] * len(lines), dtype=pl.String),
            "offset": pl.Series(range(len(lines)), dtype=pl.Int64),
            "observed_timestamp": pl.Series([observed] * len(lines), dtype=pl.Datetime("us", "UTC")),
        }
    )


def parse(line: str, **options: Any) -> dict[str, Any]:
    """The fields of one line that say something."""
    split = Syslog(**options)(table([line]))
    assert split.rejected.height == 0, split.rejected["rejected.message"][0]
    row = split.kept.drop("source", "offset", "observed_timestamp", "log.record.original").row(0, named=True)
    return {name: value for name, value in row.items() if value is not None}


def reason(line: str | None, **options: Any) -> str:
    split = Syslog(**options)(table([line]))
    assert split.kept.height == 0
    assert split.rejected["rejected.rule"].to_list() == ["syslog"]
    return str(split.rejected["rejected.message"][0])


def check_nothing_is_lost(given: pl.DataFrame, split: Split) -> None:
    """Kept and rejected rows are the given ones, in order, with the lines untouched."""
    both = pl.concat(
        [
            split.kept.select("offset", "source", "observed_timestamp", body="log.record.original"),
            split.rejected.select("offset", "source", "observed_timestamp", "body"),
        ]
    )
    assert split.kept["offset"].is_sorted()
    assert split.rejected["offset"].is_sorted()
    assert both.sort("offset").equals(given.select(both.columns), null_equal=True)
    assert split.kept.schema == {**COLUMNS, **given.drop("body").schema}
    assert split.rejected.schema == {**given.schema, "rejected.rule": pl.String, "rejected.message": pl.String}
    assert not split.rejected["rejected.message"].has_nulls()
