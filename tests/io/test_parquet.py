"""What is written as Parquet is read back as it was, and texts that repeat are written as dictionaries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from fabric_beam import WriteTo
from fabric_beam.testing import run

ROWS = 140_000
START = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = pl.DataFrame(
    {
        "timestamp": [START] * ROWS,
        "method": ["GET", "POST", None, "GET"] * (ROWS // 4),
        # One value in the first row group, too many for our dictionaries in the second.
        "path": ["/index.html"] * 131_072 + [f"/{n:0150}" for n in range(ROWS - 131_072)],
        "body": [f"a line of which there is but one {n}" for n in range(ROWS)],
        "size": list(range(ROWS)),
        "ratio": [0.5, None] * (ROWS // 2),
        "flag": [True, False] * (ROWS // 2),
        "tags": [["a", "b"], []] * (ROWS // 2),
    },
    schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "size": pl.UInt32},
)


@pytest.mark.parametrize(
    "more",
    [
        {},
        # Parquet has no types for these: the Arrow schema in the file tells them.
        {
            "took": pl.Series([timedelta(seconds=1)]),
            "local": pl.Series([START], dtype=pl.Datetime("us", "Europe/Berlin")),
            "level": pl.Series(["WARN"], dtype=pl.Categorical),
        },
    ],
    ids=["types of Parquet", "types of Arrow"],
)
def test_rows_come_back_as_they_were(tmp_path: Path, more: dict[str, pl.Series]) -> None:
    """In the same types, whatever way each column was written in."""
    events = EVENTS.with_columns(column.new_from_index(0, ROWS).alias(name) for name, column in more.items())
    run([events[:100_000], events[100_000:131_072], events[131_072:]], WriteTo(f"parquet:{tmp_path}"))
    [path] = tmp_path.glob("**/*.parquet")
    assert pl.read_parquet(path, hive_partitioning=False).equals(events)


def test_few_values_are_found_by_their_statistics(tmp_path: Path) -> None:
    """Readers skip row groups by the least and the greatest value of a column."""
    run([EVENTS[:131_072], EVENTS[131_072:]], WriteTo(f"parquet:{tmp_path}"))
    [path] = tmp_path.glob("**/*.parquet")
    file = pq.ParquetFile(path)
    columns = {name: file.metadata.row_group(0).column(number) for number, name in enumerate(EVENTS.columns[:5])}
    assert (columns["method"].statistics.min, columns["method"].statistics.max) == ("GET", "POST")
    assert "RLE_DICTIONARY" in columns["method"].encodings
    assert columns["size"].statistics.max == 131_071
    assert file.metadata.num_row_groups == 2
